"""Exported models, opened from files or servers."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.export.litert import read_litert_record
from keras_rpe.export.onnx import read_onnx_record
from keras_rpe.export.saved_model import EXTRA_FOLDER, RECORD_NAME, ExportRecord, latest_version
from keras_rpe.export.served import MAX_SCALES, OUTPUTS, ServedModel, one_sentence
from keras_rpe.optional_import import optional_import


class LitertClient(ServedModel):
    """A LiteRT file that its interpreter runs, one image at a time."""

    def __init__(self, file: Path, num_threads: int) -> None:
        super().__init__(str(file), takes_floats=False)
        interpreter = optional_import("ai_edge_litert.interpreter", "litert")
        content = file.read_bytes()
        try:
            self._interpreter = interpreter.Interpreter(
                model_content=content, num_threads=num_threads
            )
            self._run = self._interpreter.get_signature_runner("serving_default")
            names = self._interpreter.get_signature_list()
            self._run_at = "diameter" in names and self._interpreter.get_signature_runner(
                "diameter"
            )
            inputs = self._run.get_input_details()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                "`path_or_url` must be a LiteRT file that is whole, with a signature "
                f"`serving_default`. Received: path_or_url={str(file)!r}, {one_sentence(error)}"
            ) from error
        if set(inputs) != {"image"} or inputs["image"]["dtype"] != np.uint8:
            raise ValueError(
                "`path_or_url` must be a LiteRT file that takes `image`, uint8. "
                f"Received: path_or_url={str(file)!r}, which takes {sorted(inputs)}"
            )
        # The interpreter resizes its tensors to the image.
        self._lock = threading.Lock()

    def predict_tables(
        self, images: np.ndarray, diameter: float | None = None
    ) -> Mapping[str, Any]:
        """Run the signature."""
        try:
            with self._lock:
                if diameter is None:
                    return self._run(image=images)
                if not self._run_at:
                    raise self._takes_no_diameter()
                return self._run_at(image=images, diameter=np.array([diameter], "float32"))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{self.source} failed: {one_sentence(error)}") from error


class OnnxClient(ServedModel):
    """An ONNX file that ONNX Runtime runs on the CPU."""

    def __init__(self, file: Path, num_threads: int) -> None:
        super().__init__(str(file), takes_floats=False)
        runtime = optional_import("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        # Fatal ones only: it warns of dynamic shapes, and errors are raised as well.
        options.log_severity_level = 4
        options.intra_op_num_threads = num_threads
        # As bytes, so that other files which this one may name are not read.
        content = file.read_bytes()
        try:
            self._session = runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime has a class for each of its codes
            raise ValueError(
                "`path_or_url` must be an ONNX file that is whole. "
                f"Received: path_or_url={str(file)!r}, {one_sentence(error)}"
            ) from error
        inputs = {value.name: value.type for value in self._session.get_inputs()}
        if inputs != {"image": "tensor(uint8)"}:
            raise ValueError(
                "`path_or_url` must be an ONNX file that takes `image`, tensor(uint8). "
                f"Received: path_or_url={str(file)!r}, which takes {inputs}"
            )
        optional = self._session.get_overridable_initializers()
        self._takes_diameter = "given_diameter" in {value.name for value in optional}
        self._names = [value.name for value in self._session.get_outputs()]

    def predict_tables(
        self, images: np.ndarray, diameter: float | None = None
    ) -> Mapping[str, Any]:
        """Run the graph."""
        inputs = {"image": images}
        if diameter is not None:
            if not self._takes_diameter:
                raise self._takes_no_diameter()
            inputs["given_diameter"] = np.array([diameter], "float32")
        try:
            values = self._session.run(self._names, inputs)
        except Exception as error:  # the runtime has a class for each of its codes
            raise ValueError(f"{self.source} failed: {one_sentence(error)}") from error
        return dict(zip(self._names, values))


_GRAPH = "saved_model.pb"


class SavedModelClient(ServedModel):
    """A SavedModel that TensorFlow runs: the version in a folder, or its highest version."""

    def __init__(self, folder: Path) -> None:
        version = folder if (folder / _GRAPH).is_file() else latest_version(folder)
        if not (version / _GRAPH).is_file():
            raise ValueError(
                f"`path_or_url` must be a folder with a {_GRAPH}, or with versions, 1, 2, …, whose "
                f"highest has one. Received: path_or_url={str(folder)!r}, without "
                f"{version / _GRAPH}"
            )
        try:
            # The functions do not keep the model alive.
            self._loaded = tf.saved_model.load(str(version))
            signatures = dict(self._loaded.signatures)
            self._signatures = {
                dtype: signatures[name]
                for name, dtype in (("serving_default", "uint8"), ("float_image", "float32"))
                if name in signatures and _takes_image(signatures[name], dtype)
            }
            at = signatures.get("diameter")
            self._at = at if at and _takes_image(at, "float32", "diameter") else None
        except Exception as error:  # whatever the parsers of its parts raise
            raise ValueError(
                "`path_or_url` must be a SavedModel that is whole. "
                f"Received: path_or_url={str(version)!r}, {one_sentence(error)}"
            ) from error
        if "uint8" not in self._signatures:
            raise ValueError(
                "`path_or_url` must be a SavedModel whose signature `serving_default` takes "
                f"`image`, uint8 (batch, height, width, 3). Received: path_or_url={str(version)!r}"
            )
        super().__init__(str(version), takes_floats="float32" in self._signatures)

    def predict_tables(
        self, images: np.ndarray, diameter: float | None = None
    ) -> Mapping[str, Any]:
        """Run the signature for the data type of the images, or that which takes a diameter."""
        run, inputs = self._signatures[images.dtype.name], {"image": tf.constant(images)}
        if diameter is not None:
            if self._at is None:
                raise self._takes_no_diameter()
            run = self._at
            inputs = {"image": tf.constant(images, "float32"), "diameter": tf.constant([diameter])}
        try:
            result = run(**inputs)
        except tf.errors.OpError as error:
            raise ValueError(f"{self.source} refused the image: {one_sentence(error)}") from error
        return {key: value.numpy() for key, value in result.items()}


def _takes_image(signature: Any, dtype: str, *others: str) -> bool:
    spec = dict(signature.structured_input_signature[1])
    image = spec.pop("image", None)
    return (
        image is not None
        and {*spec} == {*others}
        and bool(image.dtype == dtype and image.shape.is_compatible_with((1, 8, 8, 3)))
    )


# More than any table has.
_MOST_VALUES = 2**22


class GrpcClient(ServedModel):
    """A model that a server runs, asked over gRPC without encryption."""

    def __init__(self, target: str, name: str, version: int | None, timeout: float) -> None:
        suffix = "" if version is None else f"/{version}"
        super().__init__(f"grpc://{target}/{name}{suffix}", takes_floats=True)
        self._target, self._timeout = target, timeout
        self._name, self._version = name, version
        self._grpc = optional_import("grpc", "serving")
        self._messages = optional_import("tensorflow_serving.apis.predict_pb2", "serving")
        self._service = optional_import(
            "tensorflow_serving.apis.prediction_service_pb2_grpc", "serving"
        )

    def predict_tables(
        self, images: np.ndarray, diameter: float | None = None
    ) -> Mapping[str, Any]:
        """Ask the server."""
        request = self._messages.PredictRequest()
        request.model_spec.name = self._name
        if self._version is not None:
            request.model_spec.version.value = self._version
        signature = "serving_default" if images.dtype == np.uint8 else "float_image"
        if diameter is not None:
            signature, images = "diameter", images.astype("float32")
            request.inputs["diameter"].CopyFrom(tf.make_tensor_proto([diameter], "float32"))
        request.model_spec.signature_name = signature
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(images))
        # Images and labels may be larger than the 4 MB that gRPC allows by default.
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        try:
            with self._grpc.insecure_channel(self._target, unlimited) as channel:
                stub = self._service.PredictionServiceStub(channel)
                response = stub.Predict(request, timeout=self._timeout)
        except self._grpc.RpcError as error:
            code, reason = error.code(), one_sentence(error.details())
            if code is self._grpc.StatusCode.DEADLINE_EXCEEDED:
                message = f"{self.source} did not answer within {self._timeout} seconds"
                raise ConnectionError(message) from error
            if code is self._grpc.StatusCode.UNAVAILABLE:
                raise ConnectionError(f"{self.source} gave no answer: {reason}") from error
            raise ValueError(f"{self.source} answered with {code.name}: {reason}") from error
        most = max(_MOST_VALUES, MAX_SCALES * images[0, :, :, 0].size)
        tables = {}
        for name in OUTPUTS & set(response.outputs):
            proto = response.outputs[name]
            shape = [size.size for size in proto.tensor_shape.dim]
            try:
                # A message of a few bytes may stand for an array that does not fit in memory.
                if min(shape, default=0) < 0 or math.prod(shape) > most:
                    raise ValueError(f"shape={tuple(shape)}")
                tables[name] = tf.make_ndarray(proto)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{self.source} must answer with arrays. "
                    f"Received: {name} of {one_sentence(error)}"
                ) from error
        return tables


class RestClient(ServedModel):
    """A model that a server runs, asked over HTTP.

    uint8 images go as PNG files to the signature `image_bytes`, others as numbers to `float_image`,
    and those with a diameter to `diameter`.
    """

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, takes_floats=True)
        self._timeout = timeout

    def predict_tables(
        self, images: np.ndarray, diameter: float | None = None
    ) -> Mapping[str, Any]:
        """Ask the server."""
        import requests
        from PIL import Image

        if diameter is not None:
            instance = {"image": images[0].tolist(), "diameter": diameter}
            signature = "diameter"
        elif images.dtype == np.uint8:
            file = io.BytesIO()
            Image.fromarray(images[0]).save(file, "PNG")
            content = base64.b64encode(file.getvalue()).decode("ascii")
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
            cause: BaseException = error
            while cause.__context__ is not None:
                cause = cause.__context__
            raise ConnectionError(f"{self.source} gave no answer: {one_sentence(cause)}") from error
        return self._tables(response.status_code, response.reason, response.content)

    def _tables(self, status: int, reason: str, content: bytes) -> Mapping[str, Any]:
        text = content.decode(errors="replace")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        answer = answer if isinstance(answer, dict) else {}
        message = answer.get("error")
        if status != 200 or message is not None:
            message = one_sentence(text if message is None else message) or reason
            # With some codes the server is there, and another try may succeed.
            kind = ConnectionError if status in (502, 503, 504) else ValueError
            raise kind(f"{self.source} answered with HTTP {status}: {message}")
        # One of two formats: {"predictions": [{name: value}]} or {"outputs": {name: [value]}}.
        rows, columns = answer.get("predictions"), answer.get("outputs")
        if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict):
            columns = {name: [value] for name, value in rows[0].items()}
        if not isinstance(columns, dict):
            raise ValueError(
                f"{self.source} must answer with the JSON of TensorFlow Serving, `predictions` of "
                f"one image or `outputs`. Received: {one_sentence(text[:80]) or 'nothing'}"
            )
        return columns


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
    """Open an exported model, here or on a server, to predict as the Keras model does.

    Nothing is asked of a server before the first image.

    Args:
        path_or_url: The folder of a SavedModel, `…/NAME/1`, or `…/NAME` for its highest version; a
            file `….tflite` or `….onnx`; the address of TensorFlow Serving, or of another server
            that speaks its protocol: `http://HOST:8501/v1/models/NAME` for REST, `/versions/N`
            after it for one version, or `grpc://HOST:8500/NAME` for gRPC, with `/N` after it.
        num_threads: Threads for a .tflite or .onnx file; default: as many as there are cores.
        timeout: Seconds that a server may take, default 60. Over REST, they limit the time until
            it accepts the connection, and the time between two parts of its answer.

    Returns:
        The model, with the methods `predict_instances`, `predict_proposals`, `predict_boundaries`
        and `predict_classes`. A .tflite or .onnx file takes uint8 images only.

    Raises:
        ValueError: If the path does not exist, it or the address is none of these, the file or
            folder is damaged, or another argument is out of range or does not go with it.
        ImportError: If the extra that it needs, `litert`, `onnx`, or `serving` for gRPC, is not
            installed.
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
    if num_threads is not None:
        check_integer("num_threads", num_threads)
    if timeout is not None:
        check_number("timeout", timeout)
    if not isinstance(path_or_url, str | os.PathLike) or not os.fspath(path_or_url):
        raise _unknown(path_or_url)
    is_url = isinstance(path_or_url, str) and "://" in path_or_url
    path = Path(os.fsdecode(path_or_url))
    if num_threads is not None and (is_url or path.is_dir()):
        raise ValueError(
            "`num_threads` goes with a .tflite or .onnx file. "
            f"Received: num_threads={num_threads!r}, path_or_url={str(path_or_url)!r}"
        )
    if timeout is not None and not is_url:
        raise ValueError(
            "`timeout` goes with the address of a server. "
            f"Received: timeout={timeout!r}, path_or_url={str(path_or_url)!r}"
        )
    if is_url:
        url, seconds = str(path_or_url), 60.0 if timeout is None else timeout
        match = _REST.fullmatch(url) or _GRPC.fullmatch(url)
        if match is None or not 0 < int(match["port"] or 1) < 2**16:
            raise _unknown(url)
        if match.re is _REST:
            return RestClient(match["model"], seconds)
        version = None if match["version"] is None else int(match["version"])
        return GrpcClient(match["target"], match["name"], version, seconds)
    if path.is_dir():
        return SavedModelClient(path)
    client = {".tflite": LitertClient, ".onnx": OnnxClient}.get(path.suffix)
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
        ValueError: If the file or its record is damaged.
        ImportError: If it is an `.onnx` file and the extra `onnx` is not installed.
        OSError: If a file cannot be read.
    """
    path = Path(path)
    readers = {".tflite": read_litert_record, ".onnx": read_onnx_record}
    read = readers.get(path.suffix, ExportRecord.from_json)
    file = path if path.suffix in readers else latest_version(path) / EXTRA_FOLDER / RECORD_NAME
    if path.suffix not in readers and not file.is_file():
        return None
    content = file.read_bytes()
    try:
        return read(content)
    except ImportError:
        raise
    except Exception as error:  # whatever the parsers of a damaged file raise
        raise ValueError(
            f"`path` must be an export that is whole. Received: path={str(path)!r}, "
            f"{one_sentence(error)}"
        ) from error
