import json
import re

import numpy as np
import pytest
import tensorflow as tf

from keras_rpe.export import export_saved_model
from keras_rpe.models import InstanceSegmenter

NAMES = {"labels", "scores", "boxes", "classes", "num_instances"}


@pytest.fixture(scope="module")
def signatures(saved_model):
    return tf.saved_model.load(saved_model).signatures


def operators(function) -> set[str]:
    """Names of the operators of a graph and of the functions in it."""
    return set(re.findall(r'\bop: "(\w+)"', str(function.graph.as_graph_def())))


def test_signatures_name_their_tensors_and_leave_sizes_open(signatures):
    served = signatures["serving_default"]
    (image,) = served.structured_input_signature[1].values()
    assert (image.name, image.dtype, image.shape.as_list()) == (
        "image",
        tf.uint8,
        [None, None, None, 3],
    )
    assert set(served.structured_outputs) == NAMES
    assert served.structured_outputs["labels"].dtype == tf.int32
    assert served.structured_outputs["labels"].shape.as_list() == [None, None, None]
    assert set(signatures["image_bytes"].structured_outputs) == NAMES | {"size"}
    assert set(signatures["embeddings"].structured_outputs) == {"embeddings", "class_scores"}


def test_grouping_is_a_loop_in_the_graph(signatures):
    assert {"While", "StatelessWhile"} & operators(signatures["serving_default"])


def test_labels_are_those_of_the_keras_model_bit_for_bit(
    signatures, nuclei, real_images, real_labels
):
    assert len({image.shape for image in real_images}) > 5
    for image, labels in zip(real_images, real_labels, strict=True):
        result = signatures["serving_default"](image=tf.constant(image[None]))
        np.testing.assert_array_equal(result["labels"][0], labels)


def test_tables_are_those_of_the_keras_model(signatures, nuclei, photo):
    expected = nuclei.predict_instances(photo)
    result = signatures["serving_default"](image=tf.constant(photo[None]))
    count = int(result["num_instances"][0])
    assert count == len(expected) > 3
    for name in ("scores", "boxes", "classes"):
        np.testing.assert_array_equal(result[name][0, :count], getattr(expected, name))


def test_batch_is_its_images(signatures, photo):
    batch = np.stack([photo, photo[::-1], 255 - photo])
    result = signatures["serving_default"](image=tf.constant(batch))
    for k, image in enumerate(batch):
        alone = signatures["serving_default"](image=tf.constant(image[None]))
        agree = np.mean(np.asarray(result["labels"][k]) == np.asarray(alone["labels"][0]))
        # Products of other shapes are rounded in another order.
        assert agree > 0.999


def test_float_images_of_16_bit(signatures, nuclei, photo):
    deep = photo.astype("uint16") * 37 + 11
    result = signatures["float_image"](image=tf.constant(deep[None].astype("float32")))
    np.testing.assert_array_equal(result["labels"][0], nuclei.predict_instances(deep).labels)


def test_files_of_several_sizes_in_one_request(signatures, nuclei, photo):
    small = photo[:50, :60]
    files = [tf.io.encode_png(photo).numpy(), tf.io.encode_png(small).numpy()]
    result = signatures["image_bytes"](image_bytes=tf.constant(files))
    assert result["labels"].shape == (2, *photo.shape[:2])
    assert result["size"].numpy().tolist() == [[*photo.shape[:2]], [*small.shape[:2]]]
    for k, image in enumerate((photo, small)):
        height, width = image.shape[:2]
        labels = nuclei.predict_instances(image).labels
        np.testing.assert_array_equal(result["labels"][k, :height, :width], labels)
    assert not np.any(result["labels"][1, 50:])
    assert not np.any(result["labels"][1, :, 60:])


def test_embeddings_are_unit_vectors(signatures, nuclei, photo):
    result = signatures["embeddings"](image=tf.constant(photo[None]))
    embeddings, scores = nuclei.embed(photo[None].astype("float32"))
    np.testing.assert_allclose(result["embeddings"], embeddings, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(result["embeddings"], axis=-1), 1, atol=1e-4)
    assert result["class_scores"].shape == (1, *photo.shape[:2], 1)
    np.testing.assert_allclose(
        result["class_scores"], scores[:, : photo.shape[0], : photo.shape[1]], atol=1e-5
    )


def test_record_names_the_preset(saved_model):
    record = json.loads((saved_model / "assets.extra" / "keras_rpe.json").read_text())
    assert record["source"] == "nuclei"
    assert record["format"] == "tf_saved_model"


@pytest.fixture(scope="module")
def small_model() -> InstanceSegmenter:
    return InstanceSegmenter("unet_small", embedding_dim=6, iterations=1)


@pytest.fixture
def fast_signatures(monkeypatch):
    """One signature that is traced at once, for tests of the files around it."""
    spec = tf.TensorSpec((None,), tf.uint8, name="image")
    signatures = {"serving_default": (lambda image: {"labels": image}, spec)}
    monkeypatch.setattr("keras_rpe.export.saved_model.serving_signatures", lambda *_: signatures)


@pytest.mark.usefixtures("fast_signatures")
def test_versions_count_up_and_are_never_overwritten(small_model, tmp_path):
    assert small_model.export(tmp_path / "mine") == tmp_path / "mine" / "1"
    assert small_model.export(tmp_path / "mine") == tmp_path / "mine" / "2"
    assert small_model.export(tmp_path / "mine" / "7") == tmp_path / "mine" / "7"
    before = (tmp_path / "mine" / "7" / "saved_model.pb").stat().st_mtime_ns
    with pytest.raises(ValueError, match="`filepath` must be a version that does not exist"):
        small_model.export(tmp_path / "mine" / "7")
    assert (tmp_path / "mine" / "7" / "saved_model.pb").stat().st_mtime_ns == before
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "1",
        "2",
        "7",
        "models.config",
    ]


@pytest.mark.usefixtures("fast_signatures")
def test_failed_export_leaves_nothing(small_model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_rpe.export.saved_model.write_warmup_requests", full)
    with pytest.raises(OSError, match="No space left"):
        small_model.export(tmp_path / "mine")
    assert [*(tmp_path / "mine").iterdir()] == []


def test_limit_is_the_one_given(small_model, tmp_path):
    version = export_saved_model(small_model, tmp_path / "mine", max_pixels=32 * 32)
    served = tf.saved_model.load(version).signatures["serving_default"]
    assert served(image=tf.zeros((1, 32, 32, 3), "uint8"))["labels"].shape == (1, 32, 32)
    message = re.escape("at most 1024 pixels in all images of a request. Received: batch=2")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served(image=tf.zeros((2, 32, 32, 3), "uint8"))


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "many"])
def test_limit_must_be_a_number_of_pixels(small_model, tmp_path, value):
    with pytest.raises(ValueError, match="`max_pixels` must be an integer"):
        small_model.export(tmp_path / "mine", max_pixels=value)
    assert not (tmp_path / "mine").exists()


def test_path_must_be_no_file(small_model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="`filepath` must be a folder"):
        small_model.export(tmp_path / "file")


@pytest.mark.slow
def test_model_of_several_classes_and_of_the_paper(tmp_path, photo):
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
