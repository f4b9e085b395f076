"""Serve a SavedModel over gRPC, as TensorFlow Serving's PredictionService.

    python grpc_server.py nuclei/1 --name nuclei --port 8500

It answers `Predict` and `GetModelMetadata`.
"""

import argparse
import signal
from concurrent import futures
from pathlib import Path

import grpc
import tensorflow as tf
from served_signatures import RequestError, ServedModel, array_of
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

_SIGNATURE_DEF = "signature_def"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """A SavedModel behind TensorFlow Serving's service.

    Args:
        name: The name under which it is served.
        served: The SavedModel.
    """

    def __init__(self, name: str, served: ServedModel) -> None:
        self.name = name
        self.served = served

    def Predict(  # noqa: N802
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Run a signature on the tensors of a request."""
        self._find(request.model_spec, context)
        try:
            inputs = {name: array_of(name, value) for name, value in request.inputs.items()}
            outputs = self.served.run(request.model_spec.signature_name, inputs)
        except RequestError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        wanted = list(request.output_filter) or list(outputs)
        unknown = sorted(set(wanted) - set(outputs))
        if unknown:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"`output_filter` must name some of {', '.join(outputs)}. "
                f"Received: {', '.join(unknown)}",
            )
        response = predict_pb2.PredictResponse(model_spec=self._spec(request.model_spec))
        for name in wanted:
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response

    def GetModelMetadata(  # noqa: N802
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the signatures: their inputs and outputs."""
        self._find(request.model_spec, context)
        if set(request.metadata_field) != {_SIGNATURE_DEF}:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"`metadata_field` must be [{_SIGNATURE_DEF!r}]. "
                f"Received: {list(request.metadata_field)}",
            )
        response = get_model_metadata_pb2.GetModelMetadataResponse(
            model_spec=self._spec(request.model_spec)
        )
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=self.served.signatures)
        response.metadata[_SIGNATURE_DEF].Pack(signatures)
        return response

    def _find(self, spec: model_pb2.ModelSpec, context: grpc.ServicerContext) -> None:
        version = spec.version.value if spec.HasField("version") else self.served.version
        if spec.name != self.name or version != self.served.version or spec.version_label:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"The model must be {self.name!r}, version {self.served.version}. "
                f"Received: name={spec.name!r}, version={spec.version_label or version}",
            )

    def _spec(self, asked: model_pb2.ModelSpec) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=self.name, signature_name=asked.signature_name)
        spec.version.value = self.served.version
        return spec


def main() -> None:
    """Load, warm up and serve until a signal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("saved_model", type=Path, help="folder of one version, such as nuclei/1")
    parser.add_argument("--name", help="default: that of the folder above the version")
    parser.add_argument("--port", type=int, default=8500)
    options = parser.parse_args()

    served = ServedModel(options.saved_model)
    requests = served.warm_up()
    name = options.name or options.saved_model.resolve().parent.name
    server = grpc.server(
        # Requests wait for the model in turn; the other threads answer quick requests.
        futures.ThreadPoolExecutor(max_workers=4),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(name, served), server
    )
    if server.add_insecure_port(f"0.0.0.0:{options.port}") == 0:
        raise SystemExit(f"`--port` must be free. Received: {options.port}")
    server.start()
    print(f"warmed up with {requests} requests, serving {name!r} on {options.port}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=5))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
