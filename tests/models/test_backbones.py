from pathlib import Path

import keras
import numpy as np
import pytest

from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import backbone_names, make_backbone, pyramid, unet_encoder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * name.startswith("resnet101_"), id=name)
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


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v3_small"])
def test_mixed_precision_and_xla(name: str) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        backbone = make_backbone(name)
    finally:
        keras.config.set_dtype_policy(policy)
    backbone.compile(jit_compile=True)
    features = backbone.predict(np.ones((1, 32, 64, 3), "float32"), verbose=0)
    assert {x.dtype.name for x in features.values()} == {"float16"}
    assert all(np.isfinite(x).all() for x in features.values())


def test_backbones_are_saved(tmp_path: Path) -> None:
    for name in ("efficientnet_lite0", "resnet50_torchvision_os8"):
        backbone = make_backbone(name)
        backbone.save(tmp_path / f"{name}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        image = np.random.default_rng(0).random((1, 33, 40, 3)).astype("float32")
        for level, feature in backbone(image).items():
            np.testing.assert_allclose(loaded(image)[level], feature, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_resnet50_segments() -> None:
    model = InstanceSegmenter("resnet50", embedding_dim=8, iterations=1, output_stride=4)
    model.compile("sgd")
    images = np.random.default_rng(0).random((1, 40, 70, 3))
    logs = model.train_on_batch(images, np.ones((1, 40, 70), "int32"), return_dict=True)
    assert np.isfinite(logs["loss"])
    assert model.predict_instances(images[0]).labels.shape == (40, 70)


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
    with pytest.raises(ValueError, match="`weights` of unet_small must be None or the path"):
        make_backbone("unet_small", weights="imagenet")
    with pytest.raises(ValueError, match="`backbone` must be a keras.Model or one of unet_small"):
        make_backbone("resnet7")


def test_an_encoder_that_begins_at_every_pixel() -> None:
    fine = unet_encoder((8, 12, 16), blocks=1, stem_stride=1)
    features, strides = pyramid(fine)
    assert strides == [1, 2, 4]
    maps = features(np.zeros((1, 24, 40, 3), "float32"))
    assert [tuple(x.shape) for x in maps] == [(1, 24, 40, 8), (1, 12, 20, 12), (1, 6, 10, 16)]
    assert list(fine.output) == ["P0", "P1", "P2"]


@pytest.mark.parametrize(
    "wrong", [{"widths": ()}, {"widths": (8, 0)}, {"blocks": 0}, {"stem_stride": 4}]
)
def test_wrong_arguments_of_the_encoder(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be .* Received: "):
        unet_encoder(**wrong)
