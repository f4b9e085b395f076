"""An exported model on servers and from the command line: the labels of the Keras model."""

import ast
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow as tf
from export.serving_processes import (
    SERVING,
    b64,
    labels_over_rest,
    png,
    predict_request,
)
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.apis import get_model_metadata_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

SIGNATURES = {"serving_default", "float_image", "image_bytes", "embeddings"}


@pytest.fixture(scope="module", params=["stained", "fluorescent"])
def image(request) -> np.ndarray:
    """An image that is everywhere, and one of the shared data where that is."""
    if request.param == "stained":
        return request.getfixturevalue("photo")
    return request.getfixturevalue("real_images")[3]


@pytest.fixture(scope="module")
def expected(nuclei, image) -> np.ndarray:
    labels = nuclei.predict_instances(image).labels
    assert labels.max() > 2
    return labels


# --- REST ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_file", [True, False])
def test_rest_by_row(rest, image, expected, as_file) -> None:
    np.testing.assert_array_equal(labels_over_rest(rest, image, as_file), expected)


def test_rest_by_column_and_other_signatures(rest, nuclei, image, expected) -> None:
    named = rest.post({"inputs": {"image": [image.tolist()]}}).json()["outputs"]
    np.testing.assert_array_equal(named["labels"], expected[None])
    assert named["num_instances"] == [expected.max()]
    floats = {"signature_name": "float_image", "instances": [{"image": image.tolist()}]}
    row = rest.post(floats).json()["predictions"][0]
    np.testing.assert_array_equal(row["labels"], expected)
    embedded = rest.post({"signature_name": "embeddings", "inputs": [image.tolist()]}).json()
    norms = np.linalg.norm(embedded["outputs"]["embeddings"], axis=-1)
    np.testing.assert_allclose(norms, 1, atol=1e-4)


def test_rest_takes_files_of_different_sizes(rest, image, expected, nuclei) -> None:
    part = np.ascontiguousarray(image[:50, :61])
    body = {"signature_name": "image_bytes", "inputs": [b64(png(image)), b64(png(part))]}
    outputs = rest.post(body).json()["outputs"]
    np.testing.assert_array_equal(outputs["size"], [image.shape[:2], (50, 61)])
    np.testing.assert_array_equal(outputs["labels"][0], expected)
    labels = np.array(outputs["labels"][1])
    np.testing.assert_array_equal(labels[:50, :61], nuclei.predict_instances(part).labels)
    assert not labels[50:].any()
    assert not labels[:, 61:].any()


def test_rest_describes_the_model(rest) -> None:
    assert requests.get(rest.url, timeout=10).json() == {"name": "nuclei", "ready": True}
    metadata = requests.get(f"{rest.url}/metadata", timeout=10).json()
    assert metadata["model_spec"] == {"name": "nuclei", "signature_name": "", "version": "1"}
    definitions = metadata["metadata"]["signature_def"]["signature_def"]
    assert set(definitions) == SIGNATURES
    image = definitions["serving_default"]["inputs"]["image"]
    assert image["dtype"] == "DT_UINT8"
    assert [dim["size"] for dim in image["tensor_shape"]["dim"]] == ["-1", "-1", "-1", "3"]


def test_rest_answers_health_checks_meanwhile(rest) -> None:
    from skimage import data

    tissue = data.immunohistochemistry()
    busy = threading.Thread(target=labels_over_rest, args=(rest, tissue, True))
    busy.start()
    waits = []
    while busy.is_alive():
        started = time.monotonic()
        assert requests.get(rest.url, timeout=10).json()["ready"]
        waits.append(time.monotonic() - started)
        time.sleep(0.02)
    # Had they waited for the model, there would be one or two.
    assert len(waits) >= 5
    assert np.median(waits) < 0.2


# --- gRPC ---------------------------------------------------------------------------------------


def test_grpc(stub, image, expected) -> None:
    reply = stub.Predict(predict_request({"image": image[None]}))
    assert reply.model_spec.version.value == 1
    np.testing.assert_array_equal(tf.make_ndarray(reply.outputs["labels"]), expected[None])
    assert tf.make_ndarray(reply.outputs["num_instances"]) == expected.max()


def test_grpc_files_and_filter(stub, image, expected) -> None:
    content = np.array([png(image)], object)
    request = predict_request({"image_bytes": content}, "image_bytes")
    request.output_filter.append("labels")
    reply = stub.Predict(request)
    assert set(reply.outputs) == {"labels"}
    np.testing.assert_array_equal(tf.make_ndarray(reply.outputs["labels"]), expected[None])


def test_grpc_describes_the_model(stub) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "nuclei"
    reply = stub.GetModelMetadata(request)
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(definitions)
    assert set(definitions.signature_def) == SIGNATURES


# --- the files beside the model -----------------------------------------------------------------


def test_warmup_requests_are_answered(stub, rest, grpc_server, saved_model) -> None:
    file = saved_model / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(file), buffer_size=2**18)
    ]
    requested = [log.predict_log.request for log in logs]
    assert {request.model_spec.signature_name for request in requested} == SIGNATURES
    for request in requested:
        assert request.model_spec.name == "nuclei"
        outputs = stub.Predict(request).outputs
        if "num_instances" in outputs:
            # The blobs of the request are found, so all of the graph has run.
            assert tf.make_ndarray(outputs["num_instances"])[0] > 1
        else:
            assert set(outputs) == {"embeddings", "class_scores"}
    for server in (rest, grpc_server):
        assert "warmed up with 4 requests" in server.log.read_text()


def test_models_config(saved_model) -> None:
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((saved_model.parent / "models.config").read_text(), config)
    (entry,) = config.model_config_list.config
    assert (entry.name, entry.base_path) == ("nuclei", "/models/nuclei")
    assert entry.model_platform == "tensorflow"


def test_saved_model_cli(saved_model, image, expected, tmp_path) -> None:
    np.save(tmp_path / "image.npy", image[None])
    cli = Path(sys.executable).parent / "saved_model_cli"
    run = [cli, "run", "--dir", saved_model, "--tag_set", "serve"]
    run += ["--signature_def", "serving_default", "--inputs", f"image={tmp_path / 'image.npy'}"]
    ended = subprocess.run(
        [*run, "--outdir", tmp_path], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected[None])


def test_servers_say_which_folder_they_want(saved_model, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SERVING))
    monkeypatch.delitem(sys.modules, "served_signatures", raising=False)
    from served_signatures import ServedModel

    with pytest.raises(SystemExit, match="must be the folder of one version of a SavedModel"):
        ServedModel(saved_model.parent)


# --- clients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["rest_client.py", "grpc_client.py"])
def test_client(script, rest, grpc_server, image, expected, tmp_path) -> None:
    tree = ast.parse((SERVING / script).read_text())
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    common = {"argparse", "base64", "io", "numpy", "PIL"}
    assert imported <= common | {"requests", "grpc", "tensorflow", "tensorflow_serving"}
    Image.fromarray(image).save(tmp_path / "image.png")
    where = {
        "rest_client.py": ["--url", rest.url],
        "grpc_client.py": ["--server", f"127.0.0.1:{grpc_server.port}"],
    }[script]
    command = [sys.executable, SERVING / script, "image.png", "--out", "labels.png", *where]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.stdout == f"{expected.max()} instances, labels in labels.png\n", ended.stderr
    with Image.open(tmp_path / "labels.png") as file:
        assert file.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(file), expected)


def test_curl_as_the_readme_has_it(rest, photo, nuclei, tmp_path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    readme = (SERVING / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n([^`]*curl[^`]*)^```", readme, re.M)
    assert "localhost:8501" in block
    Image.fromarray(photo).save(tmp_path / "image.png")
    ended = subprocess.run(
        [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            block.replace("localhost:8501", f"localhost:{rest.port}"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    count = nuclei.predict_instances(photo).labels.max()
    assert ended.stdout.strip() == f"{count} instances"


def test_load_served(rest, grpc_server, image, expected) -> None:
    from keras_rpe.export import load_served

    for url in (rest.url, f"grpc://127.0.0.1:{grpc_server.port}/nuclei"):
        np.testing.assert_array_equal(load_served(url).predict_instances(image).labels, expected)
