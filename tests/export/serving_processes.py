"""The servers of examples/serving, each in a process of its own, and requests to them."""

import base64
import contextlib
import io
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import requests
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

SERVING = Path(__file__).parents[2] / "examples" / "serving"
_START_SECONDS = 180


@dataclass
class Server:
    """A server that has begun to serve the model under the name `nuclei`.

    Attributes:
        port: Where it listens.
        process: The process.
        log: What it wrote.
    """

    port: int
    process: psutil.Popen
    log: Path

    @property
    def url(self) -> str:
        """Address of the model over REST."""
        return f"http://127.0.0.1:{self.port}/v1/models/nuclei"

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return self.process.memory_info().rss

    @property
    def peak(self) -> int:
        """Most resident bytes so far; 0 where the system does not tell."""
        status = Path(f"/proc/{self.process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def post(self, body: object, raw: bool = False) -> requests.Response:
        """Send a predict request: JSON, or bytes as they are."""
        content = {"data": body} if raw else {"json": body}
        return requests.post(f"{self.url}:predict", timeout=300, **content)


@contextlib.contextmanager
def running(script: str, saved_model: Path, log: Path) -> Iterator[Server]:
    """Start a server of examples/serving; it has ended when the block is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVING / script), str(saved_model), "--port", str(port)]
    with log.open("wb") as file:
        process = psutil.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "100"}
        )
    server = Server(port, process, log)
    try:
        end = time.monotonic() + _START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{script} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()


def shared(config: pytest.Config, script: str, saved_model: Path) -> Server:
    """The server that all test files share; it ends with the run."""
    servers = config.stash.setdefault(_SERVERS, {})
    if script not in servers:
        log = saved_model.parents[1] / f"{Path(script).stem}-{os.getpid()}.log"
        manager = running(script, saved_model, log)
        servers[script] = manager.__enter__()
        config.add_cleanup(lambda: manager.__exit__(None, None, None))
    return servers[script]


_SERVERS = pytest.StashKey[dict[str, Server]]()


@contextlib.contextmanager
def prediction_stub(
    server: Server,
) -> Iterator[prediction_service_pb2_grpc.PredictionServiceStub]:
    """A client of the gRPC server, for messages of any size."""
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=unlimited) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def png(image: np.ndarray) -> bytes:
    """An image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def claims(height: int, width: int) -> bytes:
    """A PNG file whose header states a size, with a few bytes of pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def b64(content: bytes) -> dict[str, str]:
    """Bytes as the REST protocol has them."""
    return {"b64": base64.b64encode(content).decode()}


def labels_over_rest(server: Server, image: np.ndarray, as_file: bool) -> np.ndarray:
    """Labels of an image, sent as a PNG file or as numbers."""
    file = {"signature_name": "image_bytes", "instances": [b64(png(image))]}
    reply = server.post(file if as_file else {"instances": [image.tolist()]})
    assert reply.status_code == 200, reply.text
    return np.array(reply.json()["predictions"][0]["labels"])


def predict_request(
    inputs: dict[str, object], signature: str = "serving_default"
) -> predict_pb2.PredictRequest:
    """A `PredictRequest` of the model `nuclei`; inputs are arrays or messages."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "nuclei"
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        is_proto = isinstance(value, tensor_pb2.TensorProto)
        request.inputs[name].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    return request


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )
