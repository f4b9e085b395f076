import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_rpe.callbacks import EmbeddingBoard
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.visualization import embedding_loops, overlay_instances


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (16, 16, 3), "uint8"), rng.uniform(size=(20, 12))]


@pytest.fixture(scope="module")
def model() -> InstanceSegmenter:
    model = InstanceSegmenter(
        unet_encoder((8, 16), blocks=1),
        embedding_dim=6,
        iterations=1,
        fusion_filters=8,
        find_diameter=False,
    )
    model.compile("adam")
    return model


def fit(model: InstanceSegmenter, board: EmbeddingBoard, epochs: int) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(size=(2, 16, 16, 3)), rng.integers(0, 3, (2, 16, 16))
    model.fit(x, y, epochs=epochs, callbacks=[board], verbose=0)


def read(folder) -> dict[tuple[str, int], np.ndarray]:
    """The pictures of all event files of a folder, by name and step."""
    pictures = {}
    for path in folder.glob("events.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "images"
                assert value.metadata.data_class == 3
                width, height, png = tf.make_ndarray(value.tensor)
                picture = np.asarray(Image.open(io.BytesIO(png)))
                assert picture.shape == (int(height), int(width), 3)
                pictures[value.tag, event.step] = picture
    return pictures


def test_writes_what_the_model_finds_and_embeds(model, tmp_path):
    board = EmbeddingBoard(tmp_path / "board", images(), seed=3)
    fit(model, board, 2)
    written = read(tmp_path / "board")
    names = [f"{kind}/{index}" for kind in ("instances", "embedding") for index in range(2)]
    assert sorted(written) == sorted((name, step) for name in names for step in range(2))
    for index, image in enumerate(images()):
        overlay = overlay_instances(image, model.predict_instances(image).labels)
        np.testing.assert_array_equal(written[f"instances/{index}", 1], overlay)
        loops = embedding_loops(model, image, projection="random", seed=3)
        np.testing.assert_array_equal(written[f"embedding/{index}", 1], loops)
    assert (written["embedding/0", 0] != written["embedding/0", 1]).any()


@pytest.mark.slow
def test_frequency_scale_recording_switched_off_and_a_second_run(model, tmp_path):
    board = EmbeddingBoard(tmp_path, images()[:1], frequency=2, projection="principal", scale=4)
    with tf.summary.record_if(False):
        fit(model, board, 5)
    written = read(tmp_path)
    assert sorted(written) == sorted(
        (f"{k}/0", s) for k in ("instances", "embedding") for s in (1, 3)
    )
    assert written["instances/0", 1].shape == (64, 64, 3)
    assert written["embedding/0", 3].shape == (64 + 16, 3 * 64 + 2 * 6, 3)
    fit(model, board, 1)
    assert len(list(tmp_path.glob("events.*"))) == 2


def test_a_model_that_does_not_embed_is_refused_before_training(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    board = EmbeddingBoard(tmp_path, images())
    with pytest.raises(TypeError, match=r"`model` must have the methods.*Received: Sequential"):
        model.fit(np.ones((2, 1)), np.ones((2, 1)), callbacks=[board], verbose=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": []}, r"`images` must hold at least one image.*Received"),
        ({"images": 3}, r"`images` must be a list of images.*Received: int"),
        ({"images": [np.zeros((16, 16)), np.zeros((4, 4))]}, r"Image 1 of `images`.*Received"),
        ({"frequency": 0}, r"`frequency` must .*Received"),
        ({"projection": "pca"}, r"`projection` must .*Received"),
        ({"seed": -1}, r"`seed` must .*Received"),
        ({"scale": 0}, r"`scale` must .*Received"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingBoard(**{"folder": tmp_path, "images": images(), **options})
