from pathlib import Path

import keras
import numpy as np
import pytest
from harness import run_layer_test

from keras_rpe.layers import BatchStatisticsNormalization
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import (
    digits_network,
    make_backbone,
    unet_encoder,
    use_batch_statistics,
)


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape).astype("float32")


def _normalized(x: np.ndarray, epsilon: float) -> np.ndarray:
    x = x.astype("float64")
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + epsilon)


def test_layer(tmp_path: Path) -> None:
    run_layer_test(
        BatchStatisticsNormalization,
        {"epsilon": 1e-3, "momentum": 0.9},
        _images(2, 5, 6, 4),
        tmp_path,
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_the_layer_normalises_by_the_batch(batch: int) -> None:
    x = 50.0 + 7.0 * _images(batch, 4, 5, 2)
    layer = BatchStatisticsNormalization(epsilon=1e-3)
    result = layer(x, training=False)
    np.testing.assert_allclose(result, _normalized(x, 1e-3), atol=1e-4)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(2))


def test_training_is_that_of_batch_normalization() -> None:
    x = _images(2, 4, 5, 3)
    ours, theirs = BatchStatisticsNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-6)
    for a, b in zip(ours.weights, theirs.weights):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_frozen_layers_use_the_batch_and_keep_their_statistics() -> None:
    x = _images(2, 4, 5, 3)
    layer = BatchStatisticsNormalization(epsilon=1e-3)
    layer.trainable = False
    np.testing.assert_allclose(layer(x, training=True), _normalized(x, 1e-3), atol=1e-4)
    np.testing.assert_array_equal(layer.moving_variance, np.ones(3))


def test_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="takes no mask"):
        BatchStatisticsNormalization()(np.ones((1, 2, 2, 1)), mask=np.ones((1, 2, 2), "bool"))


@pytest.mark.parametrize("name", ["digits", "resnet50"])
def test_backbones_switch_on_and_off(name: str) -> None:
    model = digits_network() if name == "digits" else make_backbone(name)
    images = _images(2, 32, 32, 3)
    on = use_batch_statistics(model)
    norms = [layer for layer in on.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) > 40
    assert all(type(layer) is BatchStatisticsNormalization for layer in norms)
    assert list(on.output) == list(model.output)
    # In training, both use the batch: what the copy predicts is what the model trains with.
    training, predicted = model(images, training=True), on(images, training=False)
    for key, value in training.items():
        np.testing.assert_allclose(predicted[key], value, atol=2e-4, rtol=1e-4)
    off = use_batch_statistics(on, on=False)
    assert not any(isinstance(layer, BatchStatisticsNormalization) for layer in off.layers)
    assert all(np.array_equal(a, b) for a, b in zip(off.get_weights(), on.get_weights()))


def _segmenter() -> InstanceSegmenter:
    return InstanceSegmenter(
        unet_encoder((8, 8)), embedding_dim=4, iterations=1, fusion_filters=8, window_size=None
    )


def test_a_task_keeps_the_switch_in_files_and_presets(tmp_path: Path) -> None:
    model = _segmenter()
    images = _images(2, 16, 24, 3)
    on = use_batch_statistics(model)
    assert type(on) is InstanceSegmenter
    norm = on.backbone.get_layer("P1_norm0")
    assert type(norm) is BatchStatisticsNormalization
    expected = on(images, training=False)["embedding"]
    assert np.abs(expected - model(images, training=False)["embedding"]).max() > 1e-3

    on.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images)["embedding"], expected, atol=1e-6)
    on.save_to_preset(tmp_path / "preset")
    loaded = InstanceSegmenter.from_preset(str(tmp_path / "preset"))
    np.testing.assert_allclose(loaded(images)["embedding"], expected, atol=1e-6)

    off = use_batch_statistics(on, on=False)
    np.testing.assert_allclose(
        off(images)["embedding"], model(images, training=False)["embedding"], atol=1e-6
    )


def test_exported_graphs_use_the_batch(tmp_path: Path) -> None:
    import tensorflow as tf

    model = use_batch_statistics(unet_encoder((8, 8)))
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    for batch in (1, 3):
        images = 0.3 * _images(batch, 16, 24, 3)
        expected = model(images, training=False)
        for name, value in loaded.serve(images).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-4)


def test_other_models_are_refused() -> None:
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="`model` must be a functional Keras model or a task"):
        use_batch_statistics(Subclassed())
