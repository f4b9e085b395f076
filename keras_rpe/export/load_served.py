"""One function for all places where an exported model may be."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from keras_rpe.export.grpc_client import GrpcClient
from keras_rpe.export.litert_client import LitertClient
from keras_rpe.export.onnx_client import OnnxClient
from keras_rpe.export.rest_client import RestClient
from keras_rpe.export.saved_model_client import SavedModelClient
from keras_rpe.export.served_model import ServedModel

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
