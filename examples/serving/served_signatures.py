"""A SavedModel in a server: checked signatures, warm-up, and errors of one sentence."""

import math
import re
import threading
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

DEFAULT = "serving_default"
# A message of a few bytes may state a tensor that repeats one value 10^18 times, so larger ones are
# refused unread. A model exported with the default limit takes far less.
MAX_TENSOR_BYTES = 2**28


class RequestError(ValueError):
    """What a client did wrong, in one sentence."""


class ServedModel:
    """The signatures of a SavedModel, run one request at a time.

    So the server needs only the memory of the largest request; TensorFlow uses all cores for each
    request anyway.

    Args:
        folder: The folder of one version, `…/NAME/1`.

    Attributes:
        version: The number of the version, or 1 if the folder's name is not a number.
        signatures: `SignatureDef` by name.
    """

    def __init__(self, folder: Path) -> None:
        saved = saved_model_pb2.SavedModel()
        try:
            saved.ParseFromString((folder / "saved_model.pb").read_bytes())
        except (OSError, DecodeError) as error:
            raise SystemExit(
                f"{folder} must be the folder of one version of a SavedModel, such as nuclei/1: "
                f"{error}"
            ) from None
        self.folder = folder
        self.version = int(folder.resolve().name) if folder.resolve().name.isdecimal() else 1
        self._loaded = tf.saved_model.load(str(folder))
        definitions = saved.meta_graphs[0].signature_def
        self.signatures = {name: definitions[name] for name in sorted(self._loaded.signatures)}
        self._turn = threading.Lock()

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a signature.

        Args:
            signature: Its name; `serving_default` if empty.
            inputs: Arrays by the names of its inputs; `bytes` objects for strings.

        Returns:
            Arrays by the names of its outputs.

        Raises:
            RequestError: If there is no such signature, its inputs are different, or its graph
                refuses them.
        """
        expected = self.inputs_of(signature)
        missing, unknown = sorted(expected.keys() - inputs), sorted(inputs.keys() - expected)
        if missing or unknown:
            raise RequestError(
                f"The inputs must be {', '.join(sorted(expected))}. "
                f"Received: {', '.join(sorted(inputs)) or 'none'}"
            )
        for name, info in expected.items():
            _check(name, inputs[name], info)
        with self._turn:
            try:
                tensors = {name: tf.constant(value) for name, value in inputs.items()}
                outputs = self._loaded.signatures[signature or DEFAULT](**tensors)
                return {name: value.numpy() for name, value in outputs.items()}
            except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
                raise RequestError(sentence(error)) from None

    def inputs_of(self, signature: str) -> dict[str, object]:
        """`TensorInfo` of the inputs of a signature, by name.

        Raises:
            RequestError: If there is no such signature.
        """
        if (signature or DEFAULT) not in self.signatures:
            raise RequestError(
                f"The signature must be one of {', '.join(self.signatures)}. "
                f"Received: {signature!r}"
            )
        return dict(self.signatures[signature or DEFAULT].inputs)

    def warm_up(self) -> int:
        """Answer the warm-up requests of the model, so the first client does not have to wait.

        Returns:
            Their number.
        """
        file = self.folder / "assets.extra" / "tf_serving_warmup_requests"
        records = list(tf.data.TFRecordDataset(str(file))) if file.exists() else []
        for record in records:
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            request = log.predict_log.request
            inputs = {name: array_of(name, value) for name, value in request.inputs.items()}
            self.run(request.model_spec.signature_name, inputs)
        return len(records)


def array_of(name: str, proto: object) -> np.ndarray:
    """Turn a `TensorProto` into an array.

    Raises:
        RequestError: If it is damaged, or states a size above that of any request.
    """
    try:
        dtype = tf.as_dtype(proto.dtype)
        dims = [dim.size for dim in proto.tensor_shape.dim]
        if proto.tensor_shape.unknown_rank or min(dims, default=0) < 0:
            raise ValueError("its shape is not known")
        if math.prod(dims) * max(dtype.size or 1, 1) > MAX_TENSOR_BYTES:
            raise ValueError(f"shape {tuple(dims)} takes more than {MAX_TENSOR_BYTES} bytes")
        return tf.make_ndarray(proto)
    except (ValueError, TypeError, OverflowError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"`{name}` must be a valid tensor. Received: {reason}") from None


def sentence(error: tf.errors.OpError) -> str:
    """The message of an operation, without TensorFlow's description of its place in the graph."""
    message = error.message.split("(most recent call last):\n")[-1]
    message = message.removeprefix("<stack traces unavailable>\n")
    message = re.split(r"\n?\s*\[\[\{\{node|\s*\[Op:", message)[0]
    asserted = re.search(r"assertion failed: \[(.*)\]", message, re.DOTALL)
    return " ".join((asserted[1] if asserted else message).split())


def _check(name: str, value: np.ndarray, info: object) -> None:
    """Check that an array has the data type and the shape that a signature states."""
    dtype = tf.as_dtype(info.dtype)
    received = tf.as_dtype(value.dtype) if value.dtype.kind not in "OSU" else tf.string
    if received != dtype:
        raise RequestError(f"`{name}` must be of type {dtype.name}. Received: {received.name}")
    sizes = [dim.size for dim in info.tensor_shape.dim]
    fits = len(sizes) == value.ndim and all(
        size in (-1, given) for size, given in zip(sizes, value.shape)
    )
    if not fits and not info.tensor_shape.unknown_rank:
        wanted = ", ".join("any" if size < 0 else str(size) for size in sizes)
        raise RequestError(
            f"`{name}` must be of shape ({wanted}), {len(sizes)} dimensions. "
            f"Received: shape={value.shape}"
        )
