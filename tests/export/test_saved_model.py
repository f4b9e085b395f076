import io
import json
import re
import struct
import sys
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from keras_rpe.export.saved_model import (
    checked_images,
    decode_image,
    serving_signatures,
    write_signatures,
)
from keras_rpe.metrics import matching
from keras_rpe.models import InstanceSegmenter

NAMES = {"labels", "scores", "boxes", "classes", "num_instances", "diameter"}
SIGNATURES = {"serving_default", "diameter", "float_image", "image_bytes", "embeddings"}
InvalidArgumentError = tf.errors.InvalidArgumentError


class TestImageChecks:
    @pytest.fixture(scope="class")
    def check(self, tmp_path_factory):
        """As a server has it: a loaded signature does not look at the shape of its input."""
        folder = str(tmp_path_factory.mktemp("checks") / "1")
        shape = (None, None, None, 3)
        specs = {name: tf.TensorSpec(shape, name, name="image") for name in ("uint8", "float32")}
        function = lambda image: {"out": checked_images(image, 1000)}  # noqa: E731
        write_signatures({name: (function, [spec]) for name, spec in specs.items()}, folder)
        loaded = tf.saved_model.load(folder)
        return lambda images: loaded.signatures[images.dtype.name](image=tf.constant(images))["out"]

    def test_good_images_pass(self, check):
        images = np.random.default_rng(0).integers(0, 255, (2, 20, 25, 3), dtype="uint8")
        np.testing.assert_array_equal(check(images), images)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((0, 20, 20, 3), "must be of shape (batch, height"),
            ((20, 20, 3), "must be of shape (batch, height"),
            ((1, 20, 20, 4), "must be of shape (batch, height"),
            ((1, 7, 20, 3), "Received: batch=1, height=7, width=20"),
            ((1, 20, 7, 3), "Received: batch=1, height=20, width=7"),
            ((3, 20, 20, 3), "at most 1000 pixels in all images of a request. Received: batch=3"),
        ],
    )
    def test_shapes(self, check, shape, message):
        with pytest.raises(InvalidArgumentError, match=re.escape(message)):
            check(np.zeros(shape, "uint8"))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_floats_must_be_finite(self, check, value):
        images = np.zeros((1, 9, 9, 3), "float32")
        check(images)
        images[0, 3, 4, 1] = value
        with pytest.raises(InvalidArgumentError, match="`image` must be finite"):
            check(images)


def encoded(image: np.ndarray | Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype="uint8")
PNG = encoded(RGB)


class TestDecodeImage:
    decode = staticmethod(
        tf.function(
            lambda content: decode_image(content, 100_000),
            input_signature=[tf.TensorSpec((), tf.string)],
        )
    )

    def test_png_of_every_layout(self):
        gray, palette = RGB[..., 0], Image.fromarray(RGB).quantize(16)
        rgba = np.concatenate([RGB, np.full((20, 30, 1), 9, "uint8")], axis=-1)
        deep = np.random.default_rng(0).integers(0, 65536, (16, 9), dtype="uint16")
        for image, expected in (
            (RGB, RGB),
            (rgba, RGB),
            (gray, np.repeat(gray[..., None], 3, -1)),
            (palette, np.asarray(palette.convert("RGB"))),
            (deep, np.repeat(deep[..., None], 3, -1)),
        ):
            np.testing.assert_array_equal(self.decode(encoded(image)), expected)

    def test_jpeg(self):
        smooth = Image.fromarray(RGB).resize((90, 60), Image.Resampling.BICUBIC)
        content = encoded(smooth, "JPEG", quality=95)
        reference = np.asarray(Image.open(io.BytesIO(content)))
        # Decoders may round differently.
        assert np.abs(np.asarray(self.decode(content)) - reference).max() <= 3

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "must be PNG or JPEG files. Received: 0 bytes"),
            (b"\x89PNG\r\n\x1a\n", "must be PNG or JPEG files. Received: 8 bytes"),
            (b"GIF89a" + bytes(50), "must be PNG or JPEG files. Received: 56 bytes"),
            (PNG[: len(PNG) // 2], "Invalid PNG data"),
            (encoded(RGB, "JPEG")[:20], "Invalid"),
            (b"\xff\xd8\xff" + bytes(40), "Invalid"),
            # The stated size is checked before anything is decoded.
            (png_header(60000, 60000), "at most 100000 pixels"),
            (png_header(2**31 - 1, 2**31 - 1), "at most 100000 pixels"),
            (png_header(7, 50), "at least 8 pixels"),
            (png_header(50, 0), "at least 8 pixels"),
        ],
    )
    def test_bad_files(self, content, message):
        with pytest.raises(InvalidArgumentError, match=message):
            self.decode(content)


class TestSignatures:
    def test_tensors_are_named_and_sizes_open(self, signatures):
        served = signatures.serving_default
        (image,) = served.structured_input_signature[1].values()
        assert (image.name, image.dtype.name) == ("image", "uint8")
        assert image.shape.as_list() == [None, None, None, 3]
        assert set(served.structured_outputs) == NAMES
        assert served.structured_outputs["labels"].dtype == tf.int32
        assert served.structured_outputs["labels"].shape.as_list() == [None, None, None]
        assert set(signatures.image_bytes.structured_outputs) == NAMES | {"size"}
        assert set(signatures.embeddings.structured_outputs) == {"embeddings", "class_scores"}

    def test_grouping_is_a_loop_in_the_graph(self, signatures):
        graph = str(signatures.serving_default.graph.as_graph_def())
        assert {"While", "StatelessWhile"} & set(re.findall(r'\bop: "(\w+)"', graph))

    def test_labels_are_those_of_the_keras_model_bit_for_bit(
        self, signatures, real_images, real_labels
    ):
        assert len({image.shape for image in real_images}) > 4
        for image, labels in zip(real_images, real_labels, strict=True):
            result = signatures.serving_default(image=tf.constant(image[None]))
            np.testing.assert_array_equal(result["labels"][0], labels)

    def test_tables_are_those_of_the_keras_model(self, signatures, nuclei, photo):
        expected = nuclei.predict_instances(photo)
        result = signatures.serving_default(image=tf.constant(photo[None]))
        count = int(result["num_instances"][0])
        assert count == len(expected) > 3
        for name in ("scores", "boxes", "classes"):
            np.testing.assert_array_equal(result[name][0, :count], getattr(expected, name))

    def test_batch_is_its_images(self, signatures, photo):
        batch = np.stack([photo, photo[::-1]])
        labels = signatures.serving_default(image=tf.constant(batch))["labels"].numpy()
        for k, image in enumerate(batch):
            alone = signatures.serving_default(image=tf.constant(image[None]))["labels"].numpy()
            # On a larger canvas, for the batch, windows lie elsewhere.
            assert np.mean((labels[k] > 0) == (alone[0] > 0)) > 0.97
            assert matching(alone[0], labels[k]).f1 > 0.8

    def test_batch_is_its_images_at_one_diameter(self, signatures, photo):
        batch = np.stack([photo, photo[::-1], 255 - photo]).astype("float32")
        given = {"diameter": tf.constant([20.0])}
        labels = signatures.diameter(image=tf.constant(batch), **given)["labels"].numpy()
        for k, image in enumerate(batch):
            alone = signatures.diameter(image=tf.constant(image[None]), **given)["labels"].numpy()
            # Products of other shapes are rounded in another order.
            assert np.mean(labels[k] == alone[0]) > 0.999

    def test_float_images_of_16_bits(self, signatures, nuclei, photo):
        deep = photo.astype("uint16") * 37 + 11
        result = signatures.float_image(image=tf.constant(deep[None].astype("float32")))
        np.testing.assert_array_equal(result["labels"][0], nuclei.predict_instances(deep).labels)

    def test_files_of_several_sizes_in_one_request(self, signatures, nuclei, photo):
        images = photo, photo[:50, :60]
        files = [tf.io.encode_png(image).numpy() for image in images]
        result = signatures.image_bytes(image_bytes=tf.constant(files))
        assert result["labels"].shape == (2, *photo.shape[:2])
        assert result["size"].numpy().tolist() == [[*image.shape[:2]] for image in images]
        for labels, image in zip(result["labels"].numpy(), images):
            expected = np.zeros(photo.shape[:2])
            expected[: len(image), : image.shape[1]] = nuclei.predict_instances(image).labels
            np.testing.assert_array_equal(labels, expected)

    def test_no_files(self, signatures):
        with pytest.raises(InvalidArgumentError, match="`image_bytes` must hold at least one file"):
            signatures.image_bytes(image_bytes=tf.constant([], tf.string))

    def test_embeddings_are_unit_vectors(self, signatures, nuclei, photo):
        result = signatures.embeddings(image=tf.constant(photo[None]))
        embeddings, scores = nuclei.embed(photo[None].astype("float32"))
        np.testing.assert_allclose(result["embeddings"], embeddings, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(result["embeddings"], axis=-1), 1, atol=1e-4)
        height, width = photo.shape[:2]
        np.testing.assert_allclose(result["class_scores"], scores[:, :height, :width], atol=1e-5)

    @pytest.mark.slow
    def test_model_of_several_classes_and_of_the_paper(self, tmp_path, photo):
        model = InstanceSegmenter(
            "unet_small",
            embedding_dim=3,
            num_classes=3,
            iterations=3,
            position_periods=None,
            embed_background=True,
            window_size=None,
            inference_window_size=None,
        )
        served = tf.saved_model.load(model.export(tmp_path / "mine")).signatures["serving_default"]
        image = photo[:40, :48]
        result = served(image=tf.constant(image[None]))
        np.testing.assert_array_equal(result["labels"][0], model.predict_instances(image).labels)


class TestFilesForServers:
    def test_warmup_requests_run_every_signature(self, saved_model, signatures):
        file = saved_model / "assets.extra" / "tf_serving_warmup_requests"
        found = set()
        for record in tf.data.TFRecordDataset(str(file)):
            request = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            request = request.predict_log.request
            name = request.model_spec.signature_name
            inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
            outputs = getattr(signatures, name)(**inputs)
            # The discs are found, so all of the graph has run.
            assert name == "embeddings" or int(outputs["num_instances"][0]) > 1
            assert request.model_spec.name == "nuclei"
            found.add(name)
        assert found == SIGNATURES

    def test_models_config(self, saved_model):
        config = model_server_config_pb2.ModelServerConfig()
        text_format.Parse((saved_model.parent / "models.config").read_text(), config)
        (entry,) = config.model_config_list.config
        assert (entry.name, entry.base_path) == ("nuclei", "/models/nuclei")
        assert entry.model_platform == "tensorflow"

    def test_record_names_the_preset(self, saved_model):
        record = json.loads((saved_model / "assets.extra" / "keras_rpe.json").read_text())
        assert (record["source"], record["format"]) == ("nuclei", "tf_saved_model")


class TestFolders:
    @pytest.fixture
    def fast_signatures(self, monkeypatch):
        """One signature that is traced at once, for tests of the files around it."""
        spec = tf.TensorSpec((None,), tf.uint8, name="image")
        signatures = {"serving_default": (lambda image: {"labels": image}, [spec])}
        target = "keras_rpe.export.saved_model.serving_signatures"
        monkeypatch.setattr(target, lambda *_: signatures)

    @pytest.mark.usefixtures("fast_signatures")
    def test_versions_count_up_and_are_never_overwritten(self, small_model, tmp_path, monkeypatch):
        # An export does not need the extra that reads the files for servers.
        monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
        folder = tmp_path / 'mine "ü"'
        assert small_model.export(folder) == folder / "1"
        assert small_model.export(folder) == folder / "2"
        assert small_model.export(folder / "7") == folder / "7"
        before = (folder / "7" / "saved_model.pb").stat().st_mtime_ns
        with pytest.raises(ValueError, match="`filepath` must be a version that does not exist"):
            small_model.export(folder / "7")
        assert (folder / "7" / "saved_model.pb").stat().st_mtime_ns == before
        assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "7", "models.config"]
        config = model_server_config_pb2.ModelServerConfig()
        text_format.Parse((folder / "models.config").read_text("utf-8"), config)
        assert config.model_config_list.config[0].name == 'mine "ü"'

    @pytest.mark.usefixtures("fast_signatures")
    def test_failed_export_leaves_nothing(self, small_model, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("keras_rpe.export.saved_model.write_file", full)
        with pytest.raises(OSError, match="No space left"):
            small_model.export(tmp_path / "mine")
        assert [*(tmp_path / "mine").iterdir()] == []

    def test_path_must_not_be_a_file(self, small_model, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ValueError, match="`filepath` must be a folder"):
            small_model.export(tmp_path / "file")


@pytest.mark.parametrize("diameter", [[0.0], [-3.0], [np.nan], [np.inf], [20.0, 20.0, 20.0], []])
def test_diameters_are_checked_in_the_graph(sized_model, monkeypatch, diameter):
    monkeypatch.setattr(sized_model, "serve", lambda images, at: {"at": at * images[:, 0, 0, 0]})
    serve, specs = serving_signatures(sized_model, max_pixels=32 * 32)["diameter"]
    run = tf.function(serve, input_signature=specs)
    images = np.ones((2, 9, 9, 3), "float32")
    for given in ([20.0], [20.0, 30.0]):
        found = run(images, np.array(given, "float32"))["at"]
        np.testing.assert_array_equal(found, np.broadcast_to(given, 2))
    with pytest.raises(InvalidArgumentError, match="`diameter` must be a positive number"):
        run(images, np.array(diameter, "float32"))


def test_limit_is_the_one_given(small_model, tmp_path, monkeypatch):
    # What follows the checks takes seconds to trace.
    monkeypatch.setattr(small_model, "serve", lambda images: {"labels": images[..., 0]})
    signature = serving_signatures(small_model, max_pixels=32 * 32)["serving_default"]
    write_signatures({"serving_default": signature}, str(tmp_path / "1"))
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    served = loaded.signatures["serving_default"]
    assert served(image=tf.zeros((1, 32, 32, 3), "uint8"))["labels"].shape == (1, 32, 32)
    with pytest.raises(InvalidArgumentError, match="at most 1024 pixels .* batch=2"):
        served(image=tf.zeros((2, 32, 32, 3), "uint8"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "torch"}, "`format` .* Received: format='torch'"),
        ({"quantize": "float16"}, "`quantize` .* Received: format='tf_saved_model'"),
        ({"format": "onnx", "representative_data": []}, "`representative_data` .*'onnx'"),
        ({"format": "onnx", "max_pixels": 99}, "`max_pixels` .* Received: format='onnx'"),
        ({"max_pixels": 63}, "`max_pixels` .* Received: max_pixels=63"),
        ({"max_pixels": True}, "`max_pixels` .* Received: max_pixels=True"),
    ],
)
def test_arguments_of_export(small_model, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        small_model.export(tmp_path / "model", **arguments)
    assert [*tmp_path.iterdir()] == []


def test_other_backends_are_told_what_to_do(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Received: backend='jax'"):
        small_model.export(tmp_path / "model")
