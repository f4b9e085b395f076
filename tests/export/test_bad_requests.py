"""Bad requests to the servers: a clear error to the client, and the server lives on."""

import json

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from export.serving_processes import (
    b64,
    claims,
    labels_over_rest,
    png,
    predict_request,
)
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

ZEROS = np.zeros((16, 16, 3), "uint8")
PIXELS = ZEROS.tolist()
WHOLE = png(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype="uint8"))
# Anything of TensorFlow's own account of an error.
NOISE = ("Graph execution", "Detected at", "node", "Traceback", "__inference", "\n", "assertion")


@pytest.fixture(scope="module")
def small(photo) -> np.ndarray:
    return np.ascontiguousarray(photo[:64, :72])


@pytest.fixture(scope="module")
def expected(nuclei, small) -> np.ndarray:
    return nuclei.predict_instances(small).labels


def check_sentence(message: str, wanted: str) -> None:
    assert wanted in message
    assert not [noise for noise in NOISE if noise in message], message
    assert len(message) < 300


def with_pixel(value: object) -> list:
    image = np.array(PIXELS).tolist()
    image[3][4][1] = value
    return image


def file_request(content: object) -> dict:
    return {"signature_name": "image_bytes", "instances": [content]}


REST = {
    "rank": ({"instances": PIXELS}, "`image` must be of shape (any, any, any, 3)"),
    "gray": ({"instances": [np.zeros((9, 9, 1), int).tolist()]}, "(any, any, any, 3)"),
    "300": ({"instances": [with_pixel(300)]}, "0 to 255. Received: values from 0 to 300"),
    "-1": ({"instances": [with_pixel(-1)]}, "0 to 255. Received: values from -1 to 0"),
    "float": ({"instances": [with_pixel(0.5)]}, "uint8 numbers. Received: floats"),
    "2^80": ({"instances": [with_pixel(2**80)]}, "`image` must"),
    "string": ({"instances": [with_pixel("7")]}, "uint8 numbers. Received: strings"),
    "null": ({"instances": [with_pixel(None)]}, "uint8 numbers. Received: other values"),
    "ragged": ({"instances": [with_pixel([1, 2])]}, "nested lists of equal lengths"),
    "sizes": ({"instances": [PIXELS, PIXELS[:-1]]}, "nested lists of equal lengths"),
    "no instances": ({"instances": []}, "at least one entry"),
    "empty image": ({"inputs": {"image": [[]]}}, "`image` must not be empty"),
    "1x1": ({"instances": [[[[1, 2, 3]]]]}, "at least 8 pixels high and wide"),
    "missing": ({"inputs": {}}, "The inputs must be image. Received: none"),
    "unknown": ({"inputs": {"image": [PIXELS], "x": 1}}, "Received: image, x"),
    "mixed": ({"instances": [{"image": PIXELS}, {"x": 1}]}, "the same inputs"),
    "signature": ({"signature_name": "x", "instances": [PIXELS]}, "Received: 'x'"),
    "signature type": ({"signature_name": 3, "instances": []}, "must be a string"),
    "both": ({"instances": [PIXELS], "inputs": [PIXELS]}, "either `instances` or `inputs`"),
    "neither": ({}, "either `instances` or `inputs`"),
    "list": ([PIXELS], "must be a JSON object"),
    "no image": (file_request(b64(b"hello")), "PNG or JPEG files. Received: 5 bytes"),
    "empty file": (file_request(b64(b"")), "PNG or JPEG files. Received: 0 bytes"),
    "base64": (file_request({"b64": "?"}), "`image_bytes` must be base64"),
    "text": (file_request("hello"), '{"b64": "…"}'),
    "nested": (file_request([b64(WHOLE)]), "`image_bytes` must be of shape (any)"),
    "ragged files": (
        {"signature_name": "image_bytes", "inputs": [b64(WHOLE), [b64(WHOLE)]]},
        "nested lists of equal lengths",
    ),
    "no files": ({"signature_name": "image_bytes", "inputs": []}, "at least one file"),
    "truncated": (file_request(b64(WHOLE[: len(WHOLE) // 2])), "Invalid PNG data"),
    "only a header": (file_request(b64(WHOLE[:20])), "PNG or JPEG files"),
    "60000": (file_request(b64(claims(60000, 60000))), "height=60000, width=60000"),
    "2^31": (file_request(b64(claims(2**31 - 1, 2**31 - 1))), "pixels"),
    "one of two": (
        {"signature_name": "image_bytes", "inputs": [b64(WHOLE), b64(WHOLE[:100])]},
        "Invalid PNG data",
    ),
}
RAW = {
    "not JSON": (b"image", "The body must be JSON"),
    "empty": (b"", "The body must be JSON"),
    "half": (json.dumps({"instances": [PIXELS]})[:-9], "The body must be JSON"),
    "deep": (b"[" * 100_000, "The body must be JSON"),
    "deep but closed": (b'{"inputs":' + b"[" * 800 + b"]" * 800 + b"}", "`image` must"),
    "NaN": (
        json.dumps({"signature_name": "float_image", "instances": [with_pixel(float("nan"))]}),
        "`image` must be finite",
    ),
    "1e60": (
        json.dumps({"signature_name": "float_image", "instances": [with_pixel(1e60)]}),
        "`image` must be finite",
    ),
}


@pytest.mark.parametrize("case", [*REST, *RAW])
def test_rest(rest, small, expected, case) -> None:
    body, message = {**REST, **RAW}[case]
    before = rest.peak
    reply = rest.post(body, raw=case in RAW)
    assert reply.status_code == 400, reply.text
    assert set(reply.json()) == {"error"}
    check_sentence(reply.json()["error"], message)
    assert rest.peak - before < 2**27
    np.testing.assert_array_equal(labels_over_rest(rest, small, True), expected)


@pytest.mark.parametrize("chunked", [False, True])
def test_rest_bounds_the_body(rest, small, expected, chunked) -> None:
    block = b" " * 2**20
    body = (block for _ in range(200)) if chunked else block * 200
    reply = rest.post(body, raw=True)
    assert reply.status_code == 413
    check_sentence(reply.json()["error"], f"at most {2**27} bytes. Received: {200 * 2**20}")
    np.testing.assert_array_equal(labels_over_rest(rest, small, False), expected)


def test_rest_unknown_model(rest) -> None:
    url = rest.url.replace("nuclei", "other")
    reply = requests.post(f"{url}:predict", json={"instances": [PIXELS]}, timeout=60)
    assert reply.status_code == 404
    check_sentence(reply.json()["error"], "other does not exist")


def test_rest_client_that_hangs_up(rest, small, expected) -> None:
    with pytest.raises(requests.exceptions.RequestException):
        requests.post(f"{rest.url}:predict", json={"instances": [PIXELS]}, timeout=0.001)
    np.testing.assert_array_equal(labels_over_rest(rest, small, True), expected)


def proto(value: np.ndarray, **changes: object) -> tensor_pb2.TensorProto:
    """An array as a message, with some of its fields replaced."""
    message = tf.make_tensor_proto(value)
    for name, change in changes.items():
        if name == "shape":
            message.tensor_shape.CopyFrom(tf.TensorShape(change).as_proto())
        else:
            setattr(message, name, change)
    return message


def image_file(content: bytes) -> np.ndarray:
    return np.array([content], object)


def compressed(shape: tuple[int, ...]) -> tensor_pb2.TensorProto:
    """One value that stands for as many as a shape states."""
    message = tensor_pb2.TensorProto(dtype=tf.uint8.as_datatype_enum, int_val=[0])
    message.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return message


FLOATS = np.where(np.arange(16)[:, None, None] == 5, np.nan, ZEROS).astype("float32")
# Name: signature, inputs as a function (some are large), and part of the sentence.
GRPC = {
    "rank": ("serving_default", lambda: {"image": ZEROS}, "(any, any, any, 3)"),
    "gray": ("serving_default", lambda: {"image": ZEROS[None, ..., :1]}, "(any, any, any, 3)"),
    "dtype": ("serving_default", lambda: {"image": ZEROS[None].astype("float32")}, "type uint8"),
    "strings": ("serving_default", lambda: {"image": image_file(b"a")}, "Received: string"),
    "numbers": ("image_bytes", lambda: {"image_bytes": ZEROS}, "must be of type string"),
    "empty batch": ("serving_default", lambda: {"image": ZEROS[None][:0]}, "at least one image"),
    "empty height": ("serving_default", lambda: {"image": ZEROS[None, :0]}, "at least 8 pixels"),
    "1x1": ("serving_default", lambda: {"image": ZEROS[None, :1, :1]}, "height=1, width=1"),
    "8192": (
        "serving_default",
        lambda: {"image": np.zeros((1, 8192, 8192, 3), "uint8")},
        "height=8192, width=8192",
    ),
    "8192 in one value": (
        "serving_default",
        lambda: {"image": compressed((1, 8192, 8192, 3))},
        "height=8192, width=8192",
    ),
    "a million in one value": (
        "serving_default",
        lambda: {"image": compressed((1, 10**6, 10**6, 3))},
        "takes more than",
    ),
    "2^63 in one value": (
        "serving_default",
        lambda: {"image": compressed((2**31, 2**31, 2**31, 3))},
        "takes more than",
    ),
    "fewer bytes": (
        "serving_default",
        lambda: {"image": proto(ZEROS[None], tensor_content=b"123")},
        "`image` must be a valid tensor",
    ),
    "no data type": (
        "serving_default",
        lambda: {"image": proto(ZEROS[None], dtype=0)},
        "`image` must be",
    ),
    "unknown shape": (
        "serving_default",
        lambda: {"image": proto(ZEROS[None], shape=(None, 16, 16, 3))},
        "its shape is not known",
    ),
    "NaN": ("float_image", lambda: {"image": FLOATS[None]}, "`image` must be finite"),
    "infinite": ("float_image", lambda: {"image": FLOATS[None] + np.inf}, "must be finite"),
    "missing": ("serving_default", dict, "The inputs must be image. Received: none"),
    "unknown": ("serving_default", lambda: {"x": ZEROS}, "Received: x"),
    "signature": ("x", lambda: {"image": ZEROS[None]}, "The signature must be one of"),
    "no image": ("image_bytes", lambda: {"image_bytes": image_file(b"hello")}, "PNG or JPEG"),
    "no files": ("image_bytes", lambda: {"image_bytes": image_file(b"")[:0]}, "at least one file"),
    "truncated": (
        "image_bytes",
        lambda: {"image_bytes": image_file(WHOLE[: len(WHOLE) // 2])},
        "Invalid PNG data",
    ),
    "60000": (
        "image_bytes",
        lambda: {"image_bytes": image_file(claims(60000, 60000))},
        "height=60000, width=60000",
    ),
}
# Above the request itself, and what it says of an array of 192 MB.
LARGE = {"8192", "8192 in one value"}


@pytest.mark.parametrize("case", GRPC)
def test_grpc(stub, grpc_server, small, expected, case) -> None:
    signature, inputs, message = GRPC[case]
    before = grpc_server.peak
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(predict_request(inputs(), signature), timeout=300)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    check_sentence(caught.value.details(), message)
    if case not in LARGE:
        assert grpc_server.peak - before < 2**27
    good = stub.Predict(predict_request({"image": small[None]}), timeout=60)
    np.testing.assert_array_equal(tf.make_ndarray(good.outputs["labels"])[0], expected)


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"name": ""}, {"version": {"value": 2}}, {"version_label": "x"}]
)
def test_grpc_unknown_model(stub, change) -> None:
    request = predict_request({"image": ZEROS[None]})
    spec = type(request.model_spec)(**change)
    request.model_spec.MergeFrom(spec)
    if "name" in change:
        request.model_spec.name = change["name"]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=60)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    check_sentence(caught.value.details(), "The model must be 'nuclei', version 1")


def test_grpc_unknown_fields(stub) -> None:
    request = predict_request({"image": ZEROS[None]})
    request.output_filter.append("x")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=60)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    check_sentence(caught.value.details(), "`output_filter` must name some of")
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["x"])
    asked.model_spec.name = "nuclei"
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModelMetadata(asked, timeout=60)
    check_sentence(caught.value.details(), "`metadata_field` must be")
