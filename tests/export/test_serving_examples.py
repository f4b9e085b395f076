"""The servers and clients of examples/serving: the labels of the Keras model."""

import base64
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
import yaml
from export.bound_servers import Server, listens, running
from PIL import Image
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_rpe.export import load_served

SERVING = Path(__file__).parents[2] / "examples" / "serving"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_its_tests(number, tmp_path) -> None:
    server = tmp_path / "server.py"
    server.write_text(
        "import socket, sys, time\n"
        "listening = socket.create_server(('127.0.0.1', int(sys.argv[-1])))\n"
        "time.sleep(300)\n"
    )
    source = f"""
        import sys, time
        sys.path[:0] = {sys.path!r}
        from pathlib import Path
        from export.bound_servers import running

        with running(Path({str(server)!r}), log=Path({str(tmp_path / "log")!r})) as server:
            print(server.port, flush=True)
            time.sleep(300)
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tests:
        try:
            port = int(tests.stdout.readline())
            tests.send_signal(number)
            end = time.monotonic() + 20
            while listens(port):
                assert time.monotonic() < end
                time.sleep(0.1)
        finally:
            tests.kill()


@pytest.fixture(scope="module")
def rest(saved_model, tmp_path_factory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("rest") / "log"
    with running(SERVING / "kserve_server.py", saved_model, log=log) as server:
        yield server


@pytest.fixture(scope="module")
def grpc_server(saved_model, tmp_path_factory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("grpc") / "log"
    with running(SERVING / "grpc_server.py", saved_model, log=log) as server:
        yield server


@pytest.fixture(scope="module")
def expected(nuclei, small) -> np.ndarray:
    labels = nuclei.predict_instances(small).labels
    assert labels.max() > 2
    return labels


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def post(server: Server, body: object) -> requests.Response:
    return requests.post(f"{server.url}:predict", json=body, timeout=300)


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def test_rest(rest, small, expected) -> None:
    assert "warmed up with 5 requests" in rest.log.read_text()
    assert requests.get(rest.url, timeout=10).json() == {"name": "nuclei", "ready": True}
    metadata = requests.get(f"{rest.url}/metadata", timeout=10).json()
    definitions = metadata["metadata"]["signature_def"]["signature_def"]
    assert definitions["serving_default"]["inputs"]["image"]["dtype"] == "DT_UINT8"
    for body in (
        {"instances": [small.tolist()]},
        {"signature_name": "image_bytes", "instances": [b64(png(small))]},
    ):
        row = post(rest, body).json()["predictions"][0]
        np.testing.assert_array_equal(row["labels"], expected)
    columns = post(rest, {"inputs": {"image": [small.tolist()]}}).json()["outputs"]
    assert columns["num_instances"] == [expected.max()]
    reply = post(rest, {"instances": [small[:7].tolist()]})
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("`image` must be at least 8 pixels high and wide")
    large = requests.post(f"{rest.url}:predict", data=b" " * (2**27 + 1), timeout=60)
    assert (large.status_code, large.json()["error"][:30]) == (
        413,
        "The body must be of at most 13",
    )
    found = load_served(rest.url).predict_instances(small)
    np.testing.assert_array_equal(found.labels, expected)


@pytest.mark.slow
def test_grpc(grpc_server, small, expected) -> None:
    assert "warmed up with 5 requests" in grpc_server.log.read_text()
    url = f"grpc://127.0.0.1:{grpc_server.port}/nuclei"
    found = load_served(url).predict_instances(small)
    np.testing.assert_array_equal(found.labels, expected)
    with pytest.raises(ValueError, match="INVALID_ARGUMENT: `image` must be at most|of at most"):
        load_served(url).predict_instances(np.zeros((2049, 2049, 3), "uint8"))
    with pytest.raises(ValueError, match="NOT_FOUND: The model must be 'nuclei', version 1"):
        load_served(f"{url}/2").predict_instances(small)
    with grpc.insecure_channel(f"127.0.0.1:{grpc_server.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        asked.model_spec.name = "nuclei"
        definitions = get_model_metadata_pb2.SignatureDefMap()
        reply = stub.GetModelMetadata(asked, timeout=60)
        assert reply.metadata["signature_def"].Unpack(definitions)
        assert "image_bytes" in definitions.signature_def
        request = predict_pb2.PredictRequest(output_filter=["num_instances"])
        request.model_spec.name = "nuclei"
        request.inputs["image"].CopyFrom(tf.make_tensor_proto(small[None]))
        outputs = stub.Predict(request, timeout=60).outputs
        assert {k: tf.make_ndarray(v).tolist() for k, v in outputs.items()} == {
            "num_instances": [expected.max()]
        }


@pytest.mark.parametrize("kind", ["rest", pytest.param("grpc", marks=pytest.mark.slow)])
def test_client(kind, request, small, expected, tmp_path) -> None:
    Image.fromarray(small).save(tmp_path / "image.png")
    if kind == "rest":
        where = ["--url", request.getfixturevalue("rest").url]
    else:
        where = ["--server", f"127.0.0.1:{request.getfixturevalue('grpc_server').port}"]
    command = [
        sys.executable,
        SERVING / f"{kind}_client.py",
        "image.png",
        "--out",
        "labels.png",
        *where,
    ]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.stdout == f"{expected.max()} instances, labels in labels.png\n", ended.stderr
    with Image.open(tmp_path / "labels.png") as file:
        np.testing.assert_array_equal(np.asarray(file), expected)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_as_the_readme_has_it(rest, small, expected, tmp_path) -> None:
    readme = (SERVING / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n([^`]*curl[^`]*)^```", readme, re.M)
    assert "localhost:8501" in block
    Image.fromarray(small).save(tmp_path / "image.png")
    command = ["bash", "-euo", "pipefail", "-c", block.replace(":8501", f":{rest.port}")]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.stdout.strip() == f"{expected.max()} instances", ended.stderr


# --- bad requests, without a server -------------------------------------------------------------


@pytest.fixture(scope="module")
def answer(saved_model):
    """What the servers do with a JSON body, or with the inputs of a gRPC request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SERVING))
        import predict_json
        from served_signatures import RequestError, ServedModel, array_of

        with pytest.raises(SystemExit, match="must be the folder of one version of a SavedModel"):
            ServedModel(saved_model.parent)
        model = ServedModel(saved_model)

        def answer(request: object) -> object:
            if not isinstance(request, tuple):
                body = request if isinstance(request, bytes) else json.dumps(request).encode()
                return predict_json.answer(model, body)
            signature, name, value = request
            proto = tf.make_tensor_proto(value) if isinstance(value, np.ndarray) else value()
            return model.run(signature, {name: array_of(name, proto)})

        answer.error = RequestError
        yield answer
        for module in ("predict_json", "served_signatures"):
            sys.modules.pop(module)


def with_pixel(value: object) -> list:
    image = np.zeros((16, 16, 3), int).tolist()
    image[3][4][1] = value
    return image


def floats(value: object) -> dict:
    return {"signature_name": "float_image", "instances": [with_pixel(value)]}


def files(*contents: object) -> dict:
    return {"signature_name": "image_bytes", "instances": list(contents)}


def stated(*shape: int | None):
    """One value that stands for as many as a shape states."""
    message = tf.make_tensor_proto(np.zeros(1, "uint8"))
    message.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return lambda: message


PIXELS = with_pixel(0)
ZEROS = np.zeros((1, 16, 16, 3), "uint8")
WHOLE = png(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype="uint8"))
BAD = {
    "rank": ({"instances": PIXELS}, "`image` must be of shape (any, any, any, 3)"),
    "300": ({"instances": [with_pixel(300)]}, "Received: values from 0 to 300"),
    "float": ({"instances": [with_pixel(0.5)]}, "uint8 numbers. Received: floats"),
    "2^80": ({"instances": [with_pixel(2**80)]}, "`image` must"),
    "string": ({"instances": [with_pixel("7")]}, "Received: strings"),
    "ragged": ({"instances": [with_pixel([1, 2])]}, "nested lists of equal lengths"),
    "no instances": ({"instances": []}, "at least one entry"),
    "empty image": ({"inputs": {"image": [[]]}}, "`image` must not be empty"),
    "missing": ({"inputs": {}}, "The inputs must be image. Received: none"),
    "unknown": ({"inputs": {"image": [PIXELS], "x": 1}}, "Received: image, x"),
    "mixed": ({"instances": [{"image": PIXELS}, {"x": 1}]}, "the same inputs"),
    "signature": ({"signature_name": "x", "instances": [PIXELS]}, "Received: 'x'"),
    "both": ({"instances": [PIXELS], "inputs": [PIXELS]}, "either `instances` or `inputs`"),
    "list": ([PIXELS], "must be a JSON object"),
    "not JSON": (b"image", "The body must be JSON"),
    "deep": (b"[" * 100_000, "The body must be JSON"),
    "deep but closed": (b'{"inputs":' + b"[" * 800 + b"]" * 800 + b"}", "`image` must"),
    "1e60": (floats(1e60), "`image` must be finite"),
    "base64": (files({"b64": "?"}), "`image_bytes` must be base64"),
    "text": (files("hello"), '{"b64": "…"}'),
    "truncated": (files(b64(WHOLE), b64(WHOLE[: len(WHOLE) // 2])), "Invalid PNG data"),
    "gRPC rank": (("", "image", ZEROS[0]), "(any, any, any, 3)"),
    "gRPC type": (("", "image", ZEROS.astype("float32")), "type uint8"),
    "gRPC name": (("", "x", ZEROS), "Received: x"),
    "gRPC size": (("", "image", stated(1, 8192, 8192, 3)), "height=8192, width=8192"),
    "gRPC huge": (("", "image", stated(2**31, 2**31, 2**31, 3)), "takes more than"),
    "gRPC open shape": (("", "image", stated(None, 16, 16, 3)), "its shape is not known"),
    "gRPC untyped": (("", "image", lambda: tf.make_tensor_proto(1).__class__()), "`image` must be"),
}
# Anything of TensorFlow's own account of an error.
NOISE = ("Graph execution", "Detected at", "node", "Traceback", "__inference", "\n", "assertion")


@pytest.mark.parametrize("case", BAD)
def test_bad_requests(answer, case) -> None:
    request, message = BAD[case]
    with pytest.raises(answer.error) as caught:
        answer(request)
    assert message in str(caught.value)
    assert not [noise for noise in NOISE if noise in str(caught.value)]
    assert len(str(caught.value)) < 300


def test_compose_serves_the_folder_of_an_export() -> None:
    content = yaml.safe_load((SERVING / "compose.yaml").read_text(encoding="utf-8"))
    service = content["services"]["serving"]
    # An export's models.config names the folder /models/NAME.
    place = "/models/${MODEL:-nuclei}"
    assert service["volumes"] == [f"./${{MODEL:-nuclei}}:{place}:ro"]
    assert service["command"] == f"--model_config_file={place}/models.config"
