"""Exported models, opened from files or servers."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_rpe.export import litert
from keras_rpe.export.saved_model import EXTRA_FOLDER, RECORD_NAME, ExportRecord, latest_version
from keras_rpe.optional_import import optional_import
from keras_rpe.results import ClassMap, Instances, Proposals, check_max_proposals, rgb_array

# Rank of each table of a batch of one: those of instances, and those of proposals.
TABLES = {"labels": 3, "scores": 2, "boxes": 3, "classes": 2, "num_instances": 1}
PROPOSAL_TABLES = ("label_maps", "scores", "scales", "ids", "boxes", "num_proposals")
_MAX_SCALES = 32
# All outputs, and how many numbers a pixel may have in each.
OUTPUTS = {
    **dict.fromkeys([*TABLES, *PROPOSAL_TABLES, "boundaries", "thin"], 1),
    "label_maps": _MAX_SCALES,
}


def checked_tables(
    tables: Mapping[str, Any], height: int, width: int, source: str
) -> dict[str, np.ndarray]:
    """Let the instances of one image through if that is what they are.

    Args:
        tables: Arrays or nested lists by name, of a batch of one.
        height: Height of the image.
        width: Its width.
        source: Where they come from, for the message.

    Returns:
        `labels`, int32 `(1, H, W)`; `scores`, float32 `(1, n)`; `boxes`, int32 `(1, n, 4)`;
        `classes`, int32 `(1, n)`; `num_instances`, int32 `(1,)`.

    Raises:
        ValueError: If one is missing, or of another shape, data type or range of values.

    Example:
        >>> from keras_rpe.export.served import checked_tables
        >>> checked_tables({"scores": [[0.5]]}, 8, 8, "model.onnx")
        Traceback (most recent call last):
        ...
        ValueError: model.onnx must give the labels, scores, boxes, classes, num_instances of one
        image of 8 x 8 pixels, like the exports of keras_rpe. Received: no labels
    """
    try:
        arrays = {name: _table(tables, name) for name in TABLES}
        rows = _rows(arrays)
        expected = {
            "labels": (1, height, width),
            "scores": (1, rows),
            "boxes": (1, rows, 4),
            "classes": (1, rows),
            "num_instances": (1,),
        }
        _check_shapes(arrays, expected)
        count = int(arrays["num_instances"][0])
        labels = arrays["labels"]
        if not 0 <= count <= rows:
            raise ValueError(f"num_instances={count}")
        if labels.min() < 0 or labels.max() > count:
            raise ValueError(f"labels from {labels.min()} to {labels.max()} of {count} instances")
    except ValueError as error:
        raise _other(source, TABLES, height, width, error) from None
    return arrays


def checked_proposals(
    tables: Mapping[str, Any], height: int, width: int, source: str
) -> dict[str, np.ndarray]:
    """Let the proposals for one image through if that is what they are.

    Args:
        tables: As in `checked_tables`.
        height: Height of the image.
        width: Its width.
        source: Where they come from, for the message.

    Returns:
        `label_maps`, int32 `(1, H, W, scales)`; `scores`, float32 `(1, n)`; `scales` and `ids`,
        int32 `(1, n)`; `boxes`, int32 `(1, n, 4)`; `num_proposals`, int32 `(1,)`.

    Raises:
        ValueError: If one is missing, or of another shape, data type or range of values.
    """
    try:
        arrays = {name: _table(tables, name) for name in PROPOSAL_TABLES}
        rows = _rows(arrays)
        maps = arrays["label_maps"].shape[-1] if arrays["label_maps"].ndim == 4 else 0
        expected = {
            "label_maps": (1, height, width, min(maps, _MAX_SCALES)),
            "scores": (1, rows),
            "scales": (1, rows),
            "ids": (1, rows),
            "boxes": (1, rows, 4),
            "num_proposals": (1,),
        }
        _check_shapes(arrays, expected)
        count = int(arrays["num_proposals"][0])
        if not 0 <= count <= rows:
            raise ValueError(f"num_proposals={count}")
        scales, ids = arrays["scales"][0, :count], arrays["ids"][0, :count]
        if count and not (scales.min() >= 0 and scales.max() < maps):
            raise ValueError(f"scales from {scales.min()} to {scales.max()} of {maps} label maps")
        if count and ids.min() < 1:
            raise ValueError(f"ids from {ids.min()}")
    except ValueError as error:
        raise _other(source, PROPOSAL_TABLES, height, width, error) from None
    return arrays


def checked_classes(tables: Mapping[str, Any], height: int, width: int, source: str) -> np.ndarray:
    """Let the class map of one image through if that is what it is.

    Args:
        tables: As in `checked_tables`.
        height: Height of the image.
        width: Its width.
        source: Where it comes from, for the message.

    Returns:
        int32 `(H, W)`, from 0.

    Raises:
        ValueError: If it is missing, or of another shape, data type or range of values.
    """
    try:
        arrays = {"classes": _table(tables, "classes")}
        _check_shapes(arrays, {"classes": (1, height, width)})
        if arrays["classes"].min() < 0:
            raise ValueError(f"classes from {arrays['classes'].min()}")
    except ValueError as error:
        raise _other(source, ["classes"], height, width, error) from None
    return arrays["classes"][0]


def _other(
    source: str, names: Iterable[str], height: int, width: int, error: ValueError
) -> ValueError:
    return ValueError(
        f"{source} must give the {', '.join(names)} of one image of {height} x {width} "
        f"pixels, like the exports of keras_rpe. Received: {error}"
    )


def _table(tables: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in tables:
        raise ValueError(f"no {name}")
    try:
        array = np.asarray(tables[name])
    except ValueError:
        raise ValueError(f"{name} that are no array") from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} of dtype={array.dtype}")
    with np.errstate(all="ignore"):
        result = array.astype(np.float32 if name == "scores" else np.int32)
        whole = name == "scores" or np.array_equal(result, array)
    if not whole or not np.isfinite(result).all():
        raise ValueError(f"{name} with values beyond its range")
    return result


def _rows(arrays: Mapping[str, np.ndarray]) -> int:
    return arrays["scores"].shape[-1] if arrays["scores"].ndim == 2 else 0


def _check_shapes(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} of shape={arrays[name].shape}")


_LONGEST_MESSAGE = 500


class ServedModel(ABC):
    """An exported model, opened by `load_served`: from a file, a folder or a server.

    Attributes:
        source: The path or address that it was opened from.
        takes_floats: Whether it takes images that are not uint8.
    """

    def __init__(self, source: str, takes_floats: bool) -> None:
        self.source = source
        self.takes_floats = takes_floats

    def predict_instances(self, image: Any) -> Instances:
        """Segment one image, with the result of `InstanceSegmenter.predict_instances`.

        Args:
            image: `(H, W)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, of any size from 8 pixels a
                side; uint8, and any integer or float data type where `takes_floats`.

        Returns:
            The instances: label map, scores, boxes, classes.

        Raises:
            ValueError: If it is not one such image; if the model or its server refuses it, for the
                reason that it gives; or if the answer does not hold instances of this image.
            ConnectionError: If the server is not reachable, does not answer in time, or says that
                it cannot serve for now (HTTP 502 to 504, gRPC `UNAVAILABLE`).
        """
        tables, height, width = self._answer(image)
        return Instances.from_tables(checked_tables(tables, height, width, self.source))

    def predict_proposals(self, image: Any, max_proposals: int | None = None) -> Proposals:
        """Propose masks of objects in one image, as `ObjectProposer.predict_proposals` does.

        Args:
            image: As `predict_instances` takes it.
            max_proposals: The best so many; default: all that the model gives.

        Returns:
            Masks, scores and boxes, the best first.

        Raises:
            ValueError: As `predict_instances`, or if `max_proposals` is no positive integer.
            ConnectionError: As `predict_instances`.
        """
        check_max_proposals(max_proposals)
        tables, height, width = self._answer(image)
        checked = checked_proposals(tables, height, width, self.source)
        return Proposals.from_tables(checked, max_proposals)

    def predict_classes(self, image: Any) -> ClassMap:
        """Classify the pixels of one image, as `SemanticSegmenter.predict_classes` does.

        Args:
            image: As `predict_instances` takes it.

        Returns:
            The class map.

        Raises:
            ValueError: As `predict_instances`.
            ConnectionError: As `predict_instances`.
        """
        tables, height, width = self._answer(image)
        return ClassMap(checked_classes(tables, height, width, self.source))

    def _answer(self, image: Any) -> tuple[Mapping[str, Any], int, int]:
        """The outputs for one image, and its height and width."""
        pixels = rgb_array(image)
        dtype = np.asarray(image).dtype
        if dtype == np.uint8:
            pixels = pixels.astype(np.uint8)
        elif not self.takes_floats:
            raise ValueError(
                f"`image` must be uint8 for {self.source}: scale it to 0 to 255 and convert it "
                "with .astype('uint8'), or use a SavedModel, which takes all data types. "
                f"Received: dtype={dtype}"
            )
        return self.predict_tables(pixels[None]), *pixels.shape[:2]

    @abstractmethod
    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Run the graph.

        Args:
            images: A batch of one, `(1, H, W, 3)`, uint8, or float32 where `takes_floats`.

        Returns:
            Its outputs by name, as they come.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r})"


def refusal(message: object) -> str:
    """Give the sentence of a graph that refused its input, without the trace around it.

    Args:
        message: An error, or its message.

    Returns:
        One line.

    Example:
        >>> from keras_rpe.export.served import refusal
        >>> refusal("assertion failed: [`image` is too large] [[{{node Assert}}]]")
        '`image` is too large'
    """
    text = str(message)
    found = re.search(r"assertion failed: \[(.*?)\]\s*(?:\[\[|$)", text, re.DOTALL)
    text = " ".join((found[1] if found else text).split())
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + " …"


class LitertClient(ServedModel):
    """A LiteRT file that its interpreter runs, one image at a time.

    Args:
        file: The file.
        num_threads: Threads of the interpreter.

    Raises:
        ValueError: If it is damaged, or not of this package.
        ImportError: If the extra `litert` is not installed.
    """

    def __init__(self, file: Path, num_threads: int) -> None:
        super().__init__(str(file), takes_floats=False)
        interpreter = optional_import("ai_edge_litert.interpreter", "litert")
        content = file.read_bytes()
        try:
            self._interpreter = interpreter.Interpreter(
                model_content=content, num_threads=num_threads
            )
            self._run = self._interpreter.get_signature_runner("serving_default")
            inputs = self._run.get_input_details()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                "`path_or_url` must be a LiteRT file that is whole, with a signature "
                f"`serving_default`. Received: path_or_url={str(file)!r}, {refusal(error)}"
            ) from error
        if set(inputs) != {"image"} or inputs["image"]["dtype"] != np.uint8:
            raise ValueError(
                "`path_or_url` must be a LiteRT file that takes `image`, uint8. "
                f"Received: path_or_url={str(file)!r}, which takes {sorted(inputs)}"
            )
        # It resizes its tensors to the image.
        self._lock = threading.Lock()

    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Run the signature."""
        try:
            with self._lock:
                return self._run(image=images)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{self.source} failed: {refusal(error)}") from error


_FATAL = 4


class OnnxClient(ServedModel):
    """An ONNX file that ONNX Runtime runs on the CPU.

    Args:
        file: The file.
        num_threads: Threads of an operator.

    Raises:
        ValueError: If it is damaged, or not of this package.
        ImportError: If the extra `onnx` is not installed.
    """

    def __init__(self, file: Path, num_threads: int) -> None:
        super().__init__(str(file), takes_floats=False)
        runtime = optional_import("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        # It warns of shapes that it does not know beforehand; errors are raised as well.
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = num_threads
        # As bytes: a file may name others, which are not read then.
        content = file.read_bytes()
        try:
            self._session = runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # a class of the runtime for each of its codes
            raise ValueError(
                "`path_or_url` must be an ONNX file that is whole. "
                f"Received: path_or_url={str(file)!r}, {refusal(error)}"
            ) from error
        inputs = {value.name: value.type for value in self._session.get_inputs()}
        if inputs != {"image": "tensor(uint8)"}:
            raise ValueError(
                "`path_or_url` must be an ONNX file that takes `image`, tensor(uint8). "
                f"Received: path_or_url={str(file)!r}, which takes {inputs}"
            )
        self._names = [value.name for value in self._session.get_outputs()]

    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Run the graph."""
        try:
            values = self._session.run(self._names, {"image": images})
        except Exception as error:  # a class of the runtime for each of its codes
            raise ValueError(f"{self.source} failed: {refusal(error)}") from error
        return dict(zip(self._names, values))


_GRAPH = "saved_model.pb"
_DTYPES = {"serving_default": tf.uint8, "float_image": tf.float32}


class SavedModelClient(ServedModel):
    """A SavedModel that TensorFlow runs.

    Args:
        folder: Folder of a version, `…/NAME/1`, or of all of them, `…/NAME`, for the highest.

    Raises:
        ValueError: If there is none in it, it is damaged, or not of this package.
    """

    def __init__(self, folder: Path) -> None:
        version = _version_folder(folder)
        try:
            self._loaded = tf.saved_model.load(str(version))
            self._signatures = {
                name: signature
                for name, signature in self._loaded.signatures.items()
                if _takes_image(signature, _DTYPES.get(name))
            }
        except Exception as error:  # whatever the parsers of its parts raise
            raise ValueError(
                "`path_or_url` must be a SavedModel that is whole. "
                f"Received: path_or_url={str(version)!r}, {refusal(error)}"
            ) from error
        if "serving_default" not in self._signatures:
            raise ValueError(
                "`path_or_url` must be a SavedModel whose signature `serving_default` takes "
                f"`image`, uint8 (batch, height, width, 3). Received: path_or_url={str(version)!r}"
            )
        super().__init__(str(version), takes_floats="float_image" in self._signatures)

    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Run the signature for the data type of the images."""
        name = "serving_default" if images.dtype == np.uint8 else "float_image"
        try:
            result = self._signatures[name](image=tf.constant(images))
        except tf.errors.OpError as error:
            raise ValueError(f"{self.source} refused the image: {refusal(error)}") from error
        return {key: value.numpy() for key, value in result.items()}


def _version_folder(folder: Path) -> Path:
    version = folder if (folder / _GRAPH).is_file() else latest_version(folder)
    if not (version / _GRAPH).is_file():
        raise ValueError(
            f"`path_or_url` must be a folder with a {_GRAPH}, or with versions, 1, 2, …, whose "
            f"highest has one. Received: path_or_url={str(folder)!r}, without {version / _GRAPH}"
        )
    return version


def _takes_image(signature: Any, dtype: tf.DType | None) -> bool:
    inputs = signature.structured_input_signature[1]
    if dtype is None or set(inputs) != {"image"}:
        return False
    spec = inputs["image"]
    return bool(spec.dtype == dtype and spec.shape.is_compatible_with((1, 8, 8, 3)))


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


# The server is there, and another try may succeed.
_BUSY = (502, 503, 504)


class RestClient(ServedModel):
    """A model that a server runs, asked over HTTP.

    Images go as PNG files if they are uint8, to the signature `image_bytes`, and as numbers to
    `float_image` if not.

    Args:
        url: Address of the model, `http://HOST:PORT/v1/models/NAME`, or of one of its versions,
            with `/versions/N` after it.
        timeout: Seconds that the server may take to accept the connection, and to start answering.
    """

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, takes_floats=True)
        self._timeout = timeout

    def predict_tables(self, images: np.ndarray) -> Mapping[str, Any]:
        """Ask the server."""
        import requests

        if images.dtype == np.uint8:
            content = base64.b64encode(_png(images[0])).decode("ascii")
            signature, instance = "image_bytes", {"image_bytes": {"b64": content}}
        else:
            signature, instance = "float_image", {"image": images[0].tolist()}
        try:
            response = requests.post(
                f"{self.source}:predict",
                json={"signature_name": signature, "instances": [instance]},
                timeout=self._timeout,
                # A redirected request would arrive as a GET without the image.
                allow_redirects=False,
            )
        except requests.Timeout:
            raise ConnectionError(
                f"{self.source} did not answer within {self._timeout} seconds"
            ) from None
        except requests.RequestException as error:
            raise ConnectionError(f"{self.source} gave no answer: {_cause(error)}") from error
        return self._tables(response.status_code, response.reason, response.content)

    def _tables(self, status: int, reason: str, content: bytes) -> Mapping[str, Any]:
        text = content.decode(errors="replace")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        message = answer.get("error") if isinstance(answer, dict) else None
        if status != 200 or message is not None:
            message = refusal(text if message is None else message) or reason
            kind = ConnectionError if status in _BUSY else ValueError
            raise kind(f"{self.source} answered with HTTP {status}: {message}")
        tables = named_tensors(answer)
        if tables is None:
            raise ValueError(
                f"{self.source} must answer with the JSON of TensorFlow Serving, `predictions` of "
                f"one image or `outputs`. Received: {refusal(text[:80]) or 'nothing'}"
            )
        return tables


def named_tensors(answer: Any) -> dict[str, Any] | None:
    """Find the tensors of one image in an answer of TensorFlow Serving.

    Args:
        answer: Its JSON, in row format, `{"predictions": [{name: value, …}]}`, or in column
            format, `{"outputs": {name: [value], …}}`.

    Returns:
        Nested lists by name, of a batch of one; `None` if it is neither.

    Example:
        >>> from keras_rpe.export.served import named_tensors
        >>> named_tensors({"predictions": [{"num_instances": 3}]})
        {'num_instances': [3]}
    """
    if not isinstance(answer, dict):
        return None
    rows, columns = answer.get("predictions"), answer.get("outputs")
    if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict):
        return {name: [value] for name, value in rows[0].items()}
    return columns if isinstance(columns, dict) else None


def _cause(error: BaseException) -> str:
    """What happened first, without the layers that passed it on."""
    while error.__context__ is not None:
        error = error.__context__
    return refusal(error)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


_SECONDS = 60.0
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = rf"({_LABEL}(\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])"
_PORT = r":(?P<port>[0-9]{1,5})"
_NAME = r"(?P<name>[^/:?#\s]+)"
_NUMBER = r"(?P<version>[0-9]{1,18})"
_REST = re.compile(
    rf"(?P<model>https?://{_HOST}({_PORT})?/v1/models/{_NAME}(/versions/{_NUMBER})?)(:predict)?/?"
)
_GRPC = re.compile(rf"grpc://(?P<target>{_HOST}{_PORT})/{_NAME}(/{_NUMBER})?/?")
_ACCEPTED = (
    "a SavedModel folder, a .tflite or .onnx file, http[s]://HOST[:PORT]/v1/models/NAME"
    "[/versions/N] or grpc://HOST:PORT/NAME[/N]"
)


def load_served(
    path_or_url: str | os.PathLike[str],
    num_threads: int | None = None,
    timeout: float | None = None,
) -> ServedModel:
    """Open an exported model, here or on a server, to segment images as the Keras model does.

    Nothing is asked of a server before the first image.

    Args:
        path_or_url: The folder of a SavedModel, `…/NAME/1`, or `…/NAME` for its highest version; a
            file `….tflite` or `….onnx`; the address of TensorFlow Serving, or of another server
            that speaks its protocol: `http://HOST:8501/v1/models/NAME` for REST, `/versions/N`
            after it for one version, or `grpc://HOST:8500/NAME` for gRPC, with `/N` after it.
        num_threads: Threads for a .tflite or .onnx file; default: as many as there are cores.
        timeout: Seconds that a server may take, default 60. Over REST, they are those until it
            accepts the connection, and between two parts of its answer.

    Returns:
        The model, whose `predict_instances` takes an image and gives `Instances`. A .tflite or
        .onnx file takes uint8 images only.

    Raises:
        ValueError: If the path does not exist, it or the address is none of these, the file or
            folder is damaged, or another argument is out of range or does not go with it.
        ImportError: If the extra for the file, `litert` or `onnx`, is not installed.
        OSError: If the file cannot be read.

    Example:
        >>> from keras_rpe.export import load_served
        >>> load_served("http://localhost:8501/v1/models/nuclei", timeout=5)
        RestClient('http://localhost:8501/v1/models/nuclei')
        >>> load_served("ftp://localhost/nuclei")
        Traceback (most recent call last):
        ...
        ValueError: `path_or_url` must be a SavedModel folder, a .tflite or .onnx file,
        http[s]://HOST[:PORT]/v1/models/NAME[/versions/N] or grpc://HOST:PORT/NAME[/N].
        Received: path_or_url='ftp://localhost/nuclei'
    """
    if not isinstance(path_or_url, str | os.PathLike) or not os.fspath(path_or_url):
        raise _unknown(path_or_url)
    _check_options(num_threads, timeout)
    if isinstance(path_or_url, str) and "://" in path_or_url:
        if num_threads is not None:
            raise ValueError(
                "`num_threads` goes with a .tflite or .onnx file. "
                f"Received: num_threads={num_threads!r}, path_or_url={path_or_url!r}"
            )
        return _from_url(path_or_url, _SECONDS if timeout is None else timeout)
    if timeout is not None:
        raise ValueError(
            "`timeout` goes with the address of a server. "
            f"Received: timeout={timeout!r}, path_or_url={str(path_or_url)!r}"
        )
    return _from_path(Path(os.fsdecode(path_or_url)), num_threads)


def _check_options(num_threads: int | None, timeout: float | None) -> None:
    if num_threads is not None and (type(num_threads) is not int or num_threads < 1):
        raise ValueError(
            f"`num_threads` must be a positive integer. Received: num_threads={num_threads!r}"
        )
    if timeout is not None and (
        not isinstance(timeout, int | float)
        or isinstance(timeout, bool)
        or not (timeout > 0 and math.isfinite(timeout))
    ):
        raise ValueError(
            f"`timeout` must be a positive number of seconds. Received: timeout={timeout!r}"
        )


def _from_url(url: str, timeout: float) -> ServedModel:
    match = _REST.fullmatch(url) or _GRPC.fullmatch(url)
    if match is None or int(match["port"] or 1) not in range(1, 2**16):
        raise _unknown(url)
    if match.re is _REST:
        return RestClient(match["model"], timeout)
    version = None if match["version"] is None else int(match["version"])
    return GrpcClient(match["target"], match["name"], version, timeout)


def _from_path(path: Path, num_threads: int | None) -> ServedModel:
    if path.is_dir():
        if num_threads is not None:
            raise ValueError(
                "`num_threads` goes with a .tflite or .onnx file. "
                f"Received: num_threads={num_threads!r}, path_or_url={str(path)!r}"
            )
        return SavedModelClient(path)
    clients = {".tflite": LitertClient, ".onnx": OnnxClient}
    client = clients.get(path.suffix)
    if client is None or not path.is_file():
        raise _unknown(path)
    return client(path, num_threads or os.cpu_count() or 1)


def _unknown(received: object) -> ValueError:
    shown = str(received) if isinstance(received, os.PathLike) else received
    missing = isinstance(received, Path) and not received.exists()
    return ValueError(
        f"`path_or_url` must be {_ACCEPTED}. Received: path_or_url={shown!r}"
        f"{', which does not exist' if missing else ''}"
    )


def read_record(path: str | os.PathLike[str]) -> ExportRecord | None:
    """Read what an exported model says of its origin.

    Args:
        path: A SavedModel, `…/NAME` or `…/NAME/1`, a `.tflite` or an `.onnx` file.

    Returns:
        The record, or `None` where there is none.

    Raises:
        ValueError: If the record is damaged.
        ImportError: If it is an `.onnx` file and the extra `onnx` is not installed.
        OSError: If a file cannot be read.
    """
    path = Path(path)
    if path.suffix == ".tflite":
        return litert.read_record(path.read_bytes())
    if path.suffix == ".onnx":
        model = optional_import("onnx", "onnx").load(path)
        texts = [entry.value for entry in model.metadata_props if entry.key == RECORD_NAME]
        return ExportRecord.from_json(texts[0]) if texts else None
    record = latest_version(path) / EXTRA_FOLDER / RECORD_NAME
    return ExportRecord.from_json(record.read_bytes()) if record.is_file() else None
