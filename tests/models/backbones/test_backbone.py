from pathlib import Path

import keras
import numpy as np
import pytest

from keras_rpe.layers import BatchStatisticsNormalization
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import (
    backbone_names,
    digits_network,
    make_backbone,
    pyramid,
    unet_encoder,
    use_batch_statistics,
)

LARGE = ("resnet101", "resnet50_torchvision_os8", "efficientnet_v2_s", "efficientnet_lite1")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * name.startswith(LARGE), id=name)
        for name in backbone_names()
    ],
)
def test_every_name_gives_a_pyramid(name: str) -> None:
    backbone = make_backbone(name)
    assert backbone.name == name
    features, strides = pyramid(backbone)
    assert list(backbone.output) == [f"P{stride.bit_length() - 1}" for stride in strides]
    levels = 3 if name.endswith("os8") else 4 if name == "unet_small" else 5
    assert strides == ([1] if name == "digits" else [2, 4, 8, 16, 32][:levels])
    maps = keras.tree.flatten(features(np.zeros((1, 64, 96, 3), "float32")))
    assert [tuple(m.shape[1:3]) for m in maps] == [(64 // s, 96 // s) for s in strides]


def test_mixed_precision_and_xla() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        backbone = make_backbone("mobilenet_v3_small")
    finally:
        keras.config.set_dtype_policy(policy)
    backbone.compile(jit_compile=True)
    features = backbone.predict(np.ones((1, 32, 64, 3), "float32"), verbose=0)
    assert {x.dtype.name for x in features.values()} == {"float16"}
    assert all(np.isfinite(x).all() for x in features.values())


def test_backbones_are_saved(tmp_path: Path) -> None:
    backbone = make_backbone("efficientnet_lite0")
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    image = np.random.default_rng(0).random((1, 33, 40, 3)).astype("float32")
    for level, feature in backbone(image).items():
        np.testing.assert_allclose(loaded(image)[level], feature, rtol=1e-5, atol=1e-5)


def test_any_keras_model_with_several_outputs() -> None:
    x = inputs = keras.Input((None, None, 3))
    maps = []
    for width in (4, 8, 8, 12):
        x = keras.layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(x)
        maps.append(x)
    model = keras.Model(inputs, {"late": maps[3], "b": maps[2], "a": maps[1], "first": maps[0]})
    assert pyramid(model)[1] == [2, 4, 8, 16]
    segmenter = InstanceSegmenter(model, embedding_dim=4, iterations=1)
    clone = InstanceSegmenter.from_config(segmenter.get_config())
    assert clone.count_params() == segmenter.count_params()


def test_pyramids_of_other_libraries() -> None:
    class LikeKerasHub(keras.Model):
        @property
        def pyramid_outputs(self):
            return {"P2": self.get_layer("two").output, "P1": self.get_layer("one").output}

    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="one")(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="two")(x)
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    assert pyramid(LikeKerasHub(inputs, x))[1] == [2, 4]

    class LikeKerasCV(keras.Model):
        pyramid_level_inputs = {"P1": "one", "P2": "two"}  # noqa: RUF012

    assert pyramid(LikeKerasCV(inputs, x))[1] == [2, 4]


def test_errors() -> None:
    inputs = keras.Input((None, None, 3))
    flat = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ValueError, match="`backbone` must give features at strides that double"):
        pyramid(flat)
    with pytest.raises(ValueError, match="`weights` must be None, 'imagenet'"):
        make_backbone("mobilenet_v2", weights="no/such/file.h5")
    with pytest.raises(ValueError, match="`weights` must be None, 'imagenet' .* not a file"):
        make_backbone("unet_small", weights="no/such/file.weights.h5")
    with pytest.raises(ValueError, match="`backbone` must be a keras.Model or one of unet_small"):
        make_backbone("resnet7")


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape).astype("float32")


def test_backbones_switch_on_and_off() -> None:
    model = digits_network()
    images = _images(2, 32, 32, 3)
    on = use_batch_statistics(model)
    norms = [layer for layer in on.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 41
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
