"""A model on a server, by the gRPC protocol of TensorFlow Serving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_rpe.export.served_model import ServedModel, refusal
from keras_rpe.export.served_tables import OUTPUTS

# More rows than any table has.
_MOST_VALUES = 2**22


class GrpcClient(ServedModel):
    """A model that a server runs, asked over gRPC without encryption.

    Args:
        target: Host and port.
        name: Name of the model.
        version: Its version, `None` for the one that the server takes.
        timeout: Seconds that the server may take to answer.
    """

    def __init__(self, target: str, name: str, version: int | None, timeout: float) -> None:
        suffix = "" if version is None else f"/{version}"
        super().__init__(f"grpc://{target}/{name}{suffix}", takes_floats=True)
        self._target, self._timeout = target, timeout
        self._name, self._version = name, version

    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Ask the server."""
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._name
        if self._version is not None:
            request.model_spec.version.value = self._version
        is_uint8 = images.dtype == np.uint8
        request.model_spec.signature_name = "serving_default" if is_uint8 else "float_image"
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(images))
        # Images and labels may be larger than the 4 MB that gRPC allows by itself.
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        try:
            with grpc.insecure_channel(self._target, unlimited) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                response = stub.Predict(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._translated(error) from error
        pixels = images[0, :, :, 0].size
        return {
            name: self._array(response.outputs[name], name, max(_MOST_VALUES, maps * pixels))
            for name, maps in OUTPUTS.items()
            if name in response.outputs
        }

    def _translated(self, error: Any) -> Exception:
        import grpc

        code, reason = error.code(), refusal(error.details())
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ConnectionError(f"{self.source} did not answer within {self._timeout} seconds")
        if code is grpc.StatusCode.UNAVAILABLE:
            return ConnectionError(f"{self.source} gave no answer: {reason}")
        return ValueError(f"{self.source} answered with {code.name}: {reason}")

    def _array(self, proto: Any, name: str, most: int) -> np.ndarray:
        shape = [size.size for size in proto.tensor_shape.dim]
        try:
            # A message of a few bytes may stand for an array beyond the memory.
            if min(shape, default=0) < 0 or math.prod(shape) > most:
                raise ValueError(f"shape={tuple(shape)}")
            return tf.make_ndarray(proto)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.source} must answer with arrays. Received: {name} of {refusal(error)}"
            ) from error
