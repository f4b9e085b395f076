"""The result of the Keras model wherever an export runs, and one sentence for all that fails."""

import base64
import io
import json
import shutil
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_rpe.export import ServedModel, load_served, read_record
from keras_rpe.metrics import matching
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder

NOWHERE = "http://127.0.0.1:9/v1/models/nuclei"


IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype="uint8")
NAMES = ("labels", "scores", "boxes", "classes")


def tables(images: np.ndarray) -> dict[str, np.ndarray]:
    """What a model gives for a batch of one: two instances, the second as bright as its corner."""
    labels = np.zeros(images.shape[:3], "int32")
    labels[:, 2:6, 3:9], labels[:, 8:12, 1:5] = 1, 2
    boxes = np.array([[[2, 3, 6, 9], [8, 1, 12, 5], [0, 0, 0, 0]]], "int32")
    scores = np.array([[0.75, np.float32(images[0, 0, 0, 0]) / 2**17, 0]], "float32")
    classes = np.array([[1, 1, 0]], "int32")
    return dict(zip((*NAMES, "num_instances"), (labels, scores, boxes, classes, np.array([2]))))


def assert_found(found, image):
    for name, table in tables(image[None]).items():
        if name in NAMES:
            value = getattr(found, name)
            assert value.dtype == table.dtype
            np.testing.assert_array_equal(value, table[0] if name == "labels" else table[0, :2])


@pytest.fixture(scope="module", autouse=True)
def _no_proxy():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            patch.setenv(name, "127.0.0.1")
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The folder of a SavedModel that gives labels and nothing else, and has a variable."""
    module = tf.Module()
    module.v = tf.Variable(tf.zeros((100,), tf.int32))
    spec = tf.TensorSpec((None, None, None, 3), "uint8", name="image")
    module.f = tf.function(
        lambda image: {"labels": module.v[0] + tf.cast(image[..., 0], tf.int32)}, [spec]
    )
    folder = tmp_path_factory.mktemp("tiny") / "1"
    tf.saved_model.save(module, str(folder), {"serving_default": module.f})
    return folder


class TestFiles:
    def test_saved_model_takes_what_keras_takes(self, saved_model, nuclei, small):
        opened = load_served(saved_model)
        for image in (small, small.astype("uint16") * 200, small[..., 0]):
            found, expected = opened.predict_instances(image), nuclei.predict_instances(image)
            assert len(expected) > 0
            for name in NAMES:
                value, true = getattr(found, name), getattr(expected, name)
                assert value.dtype == true.dtype
                np.testing.assert_array_equal(value, true)
        with pytest.raises(ValueError, match="at most 4194304 pixels") as error:
            opened.predict_instances(np.zeros((2049, 2049), "uint8"))
        assert "\n" not in str(error.value)
        assert "node" not in str(error.value)

    def test_highest_version_is_taken(self, tiny, tmp_path):
        for version in ("2", "10", "9", "notes"):
            (tmp_path / version).symlink_to(tiny)
        served = load_served(str(tmp_path))
        assert served.source == str(tmp_path / "10")
        assert repr(served) == f"SavedModelClient({served.source!r})"

    @pytest.mark.parametrize("kind", ["litert", pytest.param("onnx", marks=pytest.mark.slow)])
    def test_file_agrees_with_keras(self, kind, nuclei, photo, request):
        file = request.getfixturevalue(kind)
        served = load_served(file, num_threads=2)
        found, expected = served.predict_instances(photo), nuclei.predict_instances(photo)
        least, difference = {"litert": (0.99, 1e-2), "onnx": (0.995, 1e-3)}[kind]  # 16, 32 bits
        assert matching(expected.labels, found.labels, 0.5).mean_true_iou >= least
        assert len(found) == len(expected) > 3
        np.testing.assert_allclose(found.scores, expected.scores, atol=difference)
        assert np.abs(found.boxes - expected.boxes).max() <= 1
        with pytest.raises(ValueError, match=r"`image` must be uint8 for .*astype.*dtype=uint16"):
            served.predict_instances(photo.astype("uint16"))

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param("nuclei.tflite", marks=pytest.mark.slow),
            pytest.param("nuclei", marks=pytest.mark.slow),
            pytest.param("nuclei.onnx", marks=pytest.mark.slow),
        ],
    )
    def test_given_diameter_is_used(self, name, sized_model, photo, tmp_path):
        formats = {"": "tf_saved_model", ".tflite": "litert", ".onnx": "onnx"}
        format = formats[Path(name).suffix]
        served = load_served(sized_model.export(tmp_path / name, format=format))
        for diameter in ("auto", 12.0, 40):
            found = served.predict_instances(photo, diameter)
            expected = sized_model.predict_instances(photo, diameter)
            assert found.diameter == pytest.approx(expected.diameter, rel=1e-3)
            assert diameter in ("auto", pytest.approx(found.diameter))
            assert (found.labels > 0).any()
            assert ((found.labels > 0) == (expected.labels > 0)).mean() > 0.999
        with pytest.raises(ValueError, match="`diameter` must be .*Received: diameter=0"):
            served.predict_instances(photo, 0)

    def test_model_that_takes_no_diameter(self, photo, tmp_path):
        encoder = unet_encoder((8, 16), blocks=1)
        model = InstanceSegmenter(encoder, embedding_dim=4, iterations=1, find_diameter=False)
        path = model.export(tmp_path / "fixed.tflite", format="litert")
        with pytest.raises(ValueError, match="`diameter` must be 'auto' for .*tflite, which takes"):
            load_served(path).predict_instances(photo, 20)

    def test_litert_takes_images_of_several_threads(self, litert, photo):
        served = load_served(litert, num_threads=1)
        images = [photo[:64, : 64 + 8 * k] for k in range(4)]
        alone = [served.predict_instances(image).labels for image in images]
        with futures.ThreadPoolExecutor(4) as pool:
            together = list(pool.map(served.predict_instances, images))
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other.labels)

    @pytest.mark.parametrize(
        ("kind", "module"),
        [
            ("litert", "ai_edge_litert.interpreter"),
            ("onnx", "onnxruntime"),
            ("serving", "grpc"),
            ("serving", "tensorflow_serving.apis.predict_pb2"),
        ],
    )
    def test_missing_extra_is_named(self, kind, module, tmp_path, monkeypatch):
        places = {"litert": tmp_path / "model.tflite", "onnx": tmp_path / "model.onnx"}
        place = places.get(kind, "grpc://host:8500/n")
        if kind in places:
            place.write_bytes(b"")
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"keras-rpe\[{kind}\]"):
            load_served(place)


class TestArguments:
    @pytest.mark.parametrize(
        "path_or_url",
        [
            None,
            3,
            b"model.onnx",
            "",
            "nowhere",
            "nowhere.onnx",
            "a\0b.tflite",
            "s3://bucket/nuclei",
            "http://host:8501/v1/models/",
            "http://host:8501/v1/models/nuclei/versions/one",
            "http://host:8501/v1/models/nuclei:classify",
            "http://host:99999/v1/models/nuclei",
            "http://user:word@host/v1/models/nuclei",
            "http://host/v1/models/nuclei?x=1",
            "http://-/v1/models/nuclei",
            "grpc://host/nuclei",
            "grpc://host:8500",
            "grpc://host:8500/nuclei/one",
        ],
    )
    def test_unknown_places_are_refused(self, path_or_url):
        with pytest.raises(ValueError, match=r"`path_or_url` must be .*\.tflite.*Received: path"):
            load_served(path_or_url)

    def test_unknown_ending_is_refused(self, tmp_path):
        (tmp_path / "model.keras").write_bytes(b"x")
        with pytest.raises(ValueError, match=r"`path_or_url` must be .*model\.keras'$"):
            load_served(tmp_path / "model.keras")

    @pytest.mark.parametrize(
        ("url", "source"),
        [
            ("https://a.b-c.org/v1/models/nuclei", "https://a.b-c.org/v1/models/nuclei"),
            ("http://h:1/v1/models/n/versions/3:predict", "http://h:1/v1/models/n/versions/3"),
            ("http://[::1]:8501/v1/models/n/", "http://[::1]:8501/v1/models/n"),
            ("grpc://[::1]:8500/n/0", "grpc://[::1]:8500/n/0"),
        ],
    )
    def test_addresses_are_understood(self, url, source):
        assert load_served(url).source == source

    @pytest.mark.parametrize(
        ("place", "arguments"),
        [
            ("model.onnx", {"num_threads": 0}),
            ("model.onnx", {"num_threads": True}),
            (NOWHERE, {"timeout": 0}),
            (NOWHERE, {"timeout": float("nan")}),
            (NOWHERE, {"timeout": "2"}),
            # These do not go with the place.
            (NOWHERE, {"num_threads": 2}),
            (".", {"num_threads": 2}),
            (".", {"timeout": 2}),
        ],
    )
    def test_other_arguments(self, place, arguments):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=rf"^`{name}` .* Received: {name}={value!r}"):
            load_served(place, **arguments)


class TestDamage:
    @pytest.mark.parametrize("kind", ["litert", pytest.param("onnx", marks=pytest.mark.slow)])
    @pytest.mark.parametrize("cut", [0, 100, 1_000_000, None])
    def test_damaged_files_are_refused(self, kind, cut, tmp_path, request):
        whole = request.getfixturevalue(kind)
        content = whole.read_bytes()[:cut]
        file = tmp_path / {"litert": "model.tflite", "onnx": "model.onnx"}[kind]
        file.write_bytes(b"garbage " * 100 if cut is None else content)
        with pytest.raises(ValueError, match=r"^`path_or_url` must be an? \S+ file that") as error:
            load_served(file)
        assert "\n" not in str(error.value)
        if cut != 0:  # An empty message of ONNX is a valid one without a record.
            with pytest.raises(ValueError, match="^`path` must be an export that is whole"):
                read_record(file)

    @pytest.mark.parametrize("part", ["saved_model.pb", "variables/variables.index"])
    def test_damaged_saved_models_are_refused(self, part, tiny, tmp_path):
        shutil.copytree(tiny, tmp_path / "1")
        content = (tmp_path / "1" / part).read_bytes()
        (tmp_path / "1" / part).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="^`path_or_url` must be a SavedModel that") as error:
            load_served(tmp_path)
        assert "\n" not in str(error.value)

    def test_folder_without_a_model_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"`path_or_url` must be a folder with a saved_model"):
            load_served(tmp_path)
        assert read_record(tmp_path) is None
        (tmp_path / "3" / "assets.extra").mkdir(parents=True)
        with pytest.raises(ValueError, match=r"without \S+/3/saved_model\.pb"):
            load_served(tmp_path)
        (tmp_path / "3" / "assets.extra" / "keras_rpe.json").write_text('{"format": 3}')
        with pytest.raises(ValueError, match="^`path` must be an export .* must hold"):
            read_record(tmp_path)

    def test_saved_model_of_something_else_is_refused(self, tmp_path):
        module = tf.Module()
        module.f = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec((), "uint8")])
        tf.saved_model.save(module, str(tmp_path / "1"), {"serving_default": module.f})
        with pytest.raises(ValueError, match="signature `serving_default` takes `image`, uint8"):
            load_served(tmp_path)

    def test_saved_model_without_tables_is_refused(self, tiny):
        served = load_served(tiny)
        with pytest.raises(ValueError, match="must give the labels, .* Received: no scores"):
            served.predict_instances(IMAGE)
        with pytest.raises(ValueError, match="`image` must be uint8 for"):
            served.predict_instances(IMAGE / 255)

    def test_onnx_of_something_else_is_refused(self, tmp_path):
        from onnx import TensorProto, helper, save

        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        node = helper.make_node("Identity", ["x"], ["y"])
        graph = helper.make_graph([node], "copy", values[:1], values[1:])
        opsets = [helper.make_opsetid("", 18)]
        save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "x.onnx")
        with pytest.raises(ValueError, match=r"takes `image`, tensor\(uint8\).*\bx\b"):
            load_served(tmp_path / "x.onnx")
        assert read_record(tmp_path / "x.onnx") is None


class RestStub(BaseHTTPRequestHandler):
    """TensorFlow Serving as far as documented; the name of the model says how it behaves."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, request))
        status, body = self.reply(self.path.split("/")[3].split(":")[0], request)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def reply(self, name, request):
        if name == "slow":
            time.sleep(0.7)
        if name in REPLIES:
            return REPLIES[name]
        (instance,) = request["instances"]
        image = instance.get("image")
        if request["signature_name"] == "image_bytes":
            content = base64.b64decode(instance["image_bytes"]["b64"], validate=True)
            image = Image.open(io.BytesIO(content))
        columns = {key: table.tolist() for key, table in tables(np.asarray(image)[None]).items()}
        if name == "columns":
            return 200, {"outputs": columns}
        return 200, {"predictions": [{key: value[0] for key, value in columns.items()}]}

    def log_message(self, *_):
        pass


REPLIES = {
    "refuses": (400, {"error": "assertion failed: [no thanks]\n\t [[{{node Assert}}]]"}),
    "wrong": (200, {"error": "something went wrong"}),
    "busy": (503, {"error": "overloaded"}),
    "gateway": (502, b"<html>Bad\nGateway</html>"),
    "empty": (500, b""),
    "moved": (307, b""),
    "slow": (200, b"{}"),
    "garbage": (200, b"\xff\x00\xfe" * 1000),
    "nothing": (200, b""),
    "deep": (200, b"[" * 100_000),
    "list": (200, [1, 2]),
    "two": (200, {"predictions": [{}, {}]}),
    "number": (200, {"predictions": [3]}),
    "incomplete": (200, {"predictions": [{"labels": []}]}),
}


@pytest.fixture(scope="module")
def rest():
    server = ThreadingHTTPServer(("127.0.0.1", 0), RestStub)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def rest_model(server, name, **arguments) -> ServedModel:
    return load_served(f"http://127.0.0.1:{server.server_port}/v1/models/{name}", **arguments)


class TestRest:
    @pytest.mark.parametrize("name", ["columns", "nuclei/versions/1", "nuclei:predict"])
    def test_images_go_as_files(self, rest, name):
        assert_found(rest_model(rest, name).predict_instances(IMAGE), IMAGE)
        path, request = rest.requests[-1]
        assert path == f"/v1/models/{name.removesuffix(':predict')}:predict"
        content = base64.b64decode(request["instances"][0]["image_bytes"]["b64"])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), IMAGE)

    def test_other_data_types_go_as_numbers(self, rest):
        image = IMAGE.astype("float32") * np.float32(np.pi)
        assert_found(rest_model(rest, "nuclei").predict_instances(image), image)
        _, request = rest.requests[-1]
        assert request["signature_name"] == "float_image"
        sent = np.array(request["instances"][0]["image"], "float32")
        np.testing.assert_array_equal(sent, image)

    def test_diameter_goes_as_a_number(self, rest):
        assert_found(rest_model(rest, "nuclei").predict_instances(IMAGE, 12), IMAGE)
        _, request = rest.requests[-1]
        assert request["signature_name"] == "diameter"
        assert request["instances"][0]["diameter"] == 12

    @pytest.mark.parametrize(
        ("name", "kind", "message"),
        [
            ("refuses", ValueError, "refuses answered with HTTP 400: no thanks$"),
            ("wrong", ValueError, "something went wrong"),
            ("busy", ConnectionError, "HTTP 503: overloaded"),
            ("gateway", ConnectionError, "HTTP 502: <html>Bad Gateway</html>"),
            ("empty", ValueError, "HTTP 500: Internal Server Error"),
            ("moved", ValueError, "HTTP 307: Temporary Redirect"),
            ("garbage", ValueError, "must answer with the JSON of TensorFlow Serving"),
            ("nothing", ValueError, "must answer with the JSON .* Received: nothing"),
            ("deep", ValueError, "must answer with the JSON of TensorFlow Serving"),
            ("list", ValueError, r"must answer with the JSON .* Received: \[1, 2\]"),
            ("two", ValueError, "must answer with the JSON of TensorFlow Serving"),
            ("number", ValueError, "must answer with the JSON of TensorFlow Serving"),
            ("incomplete", ValueError, "Received: no scores"),
        ],
    )
    def test_failures_are_one_sentence(self, rest, name, kind, message):
        with pytest.raises(kind, match=message) as error:
            rest_model(rest, name).predict_instances(IMAGE)
        assert type(error.value) is kind
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 700

    def test_timeout(self, rest):
        with pytest.raises(ConnectionError, match=r"slow did not answer within 0\.2 seconds"):
            rest_model(rest, "slow", timeout=0.2).predict_instances(IMAGE)

    def test_nobody_there(self):
        with pytest.raises(ConnectionError, match="nuclei gave no answer: .*refused$"):
            load_served(NOWHERE).predict_instances(IMAGE)


class GrpcStub(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The prediction service; the name of the model says how it behaves."""

    def __init__(self):
        self.requests = []

    def Predict(self, request, context):  # noqa: N802
        self.requests.append(request)
        name = request.model_spec.name
        if name in grpc.StatusCode.__members__:
            context.abort(grpc.StatusCode[name], "assertion failed: [no thanks] [[{{node A}}]]")
        if name == "slow":
            time.sleep(0.7)
        response = predict_pb2.PredictResponse()
        for key, table in tables(tf.make_ndarray(request.inputs["image"])).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(table))
        labels = response.outputs["labels"]
        if name == "incomplete":
            del response.outputs["boxes"]
        elif name == "huge":
            labels.CopyFrom(tf.make_tensor_proto([0]))
            labels.tensor_shape.CopyFrom(tf.TensorShape((1, 10**6, 10**6)).as_proto())
        elif name == "strings":
            labels.CopyFrom(tf.make_tensor_proto(["a"]))
        elif name == "untyped":
            labels.dtype = 0
        return response


@pytest.fixture(scope="module")
def service():
    stub = GrpcStub()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(2), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(stub, server)
    stub.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield stub
    server.stop(None).wait(10)


def grpc_model(service, name, **arguments) -> ServedModel:
    return load_served(f"grpc://127.0.0.1:{service.port}/{name}", **arguments)


class TestGrpc:
    @pytest.mark.parametrize("version", [None, 3])
    def test_images_go_as_tensors(self, service, version):
        name = "nuclei" if version is None else f"nuclei/{version}"
        assert_found(grpc_model(service, name).predict_instances(IMAGE), IMAGE)
        request = service.requests[-1]
        spec = request.model_spec
        assert (spec.name, spec.signature_name) == ("nuclei", "serving_default")
        assert (spec.version.value if spec.HasField("version") else None) == version
        np.testing.assert_array_equal(tf.make_ndarray(request.inputs["image"]), IMAGE[None])

    def test_other_data_types_go_as_floats(self, service):
        image = IMAGE.astype("uint16") * 200
        found = grpc_model(service, "nuclei").predict_instances(image)
        assert_found(found, image.astype("float32"))
        assert service.requests[-1].model_spec.signature_name == "float_image"

    def test_diameter_goes_as_a_tensor(self, service):
        assert_found(grpc_model(service, "nuclei").predict_instances(IMAGE, 12), IMAGE)
        request = service.requests[-1]
        assert request.model_spec.signature_name == "diameter"
        assert tf.make_ndarray(request.inputs["diameter"]).tolist() == [12]
        assert tf.make_ndarray(request.inputs["image"]).dtype == np.float32

    def test_messages_may_be_large(self, service):
        image = np.zeros((1300, 1300, 3), "uint8")  # 5 MB, where gRPC allows 4 by default
        assert_found(grpc_model(service, "nuclei").predict_instances(image), image)

    @pytest.mark.parametrize(
        ("name", "kind", "message"),
        [
            ("INVALID_ARGUMENT", ValueError, "answered with INVALID_ARGUMENT: no thanks$"),
            ("UNAVAILABLE", ConnectionError, "gave no answer: no thanks$"),
            ("DEADLINE_EXCEEDED", ConnectionError, "did not answer within 60.0 seconds$"),
            ("incomplete", ValueError, "Received: no boxes$"),
            ("huge", ValueError, r"must answer with arrays.*labels of shape=\(1, 1000000, 1000000"),
            ("strings", ValueError, "Received: labels of dtype=object"),
            ("untyped", ValueError, "must answer with arrays"),
        ],
    )
    def test_failures_are_one_sentence(self, service, name, kind, message):
        with pytest.raises(kind, match=message) as error:
            grpc_model(service, name).predict_instances(IMAGE)
        assert type(error.value) is kind
        assert "\n" not in str(error.value)

    def test_timeout(self, service):
        with pytest.raises(ConnectionError, match=r"slow did not answer within 0\.2 seconds"):
            grpc_model(service, "slow", timeout=0.2).predict_instances(IMAGE)

    def test_nobody_there(self):
        with pytest.raises(ConnectionError, match="nuclei gave no answer: .*refused"):
            load_served("grpc://127.0.0.1:9/nuclei").predict_instances(IMAGE)

    def test_server_of_another_protocol(self, rest):
        address = f"grpc://127.0.0.1:{rest.server_port}/nuclei"
        with pytest.raises((ConnectionError, ValueError), match="nuclei"):
            load_served(address, timeout=2).predict_instances(IMAGE)
