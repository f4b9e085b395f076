import keras
import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test

from keras_rpe.layers import (
    BilinearUpsampling,
    CropLike,
    FeatureFusion,
    SubpixelConv2DTranspose,
)

RNG = np.random.default_rng(0)


def test_upsampling_harness(tmp_path) -> None:
    maps = RNG.normal(size=(2, 5, 7, 2)).astype("float32")
    run_layer_test(BilinearUpsampling, {"factor": 4}, maps, tmp_path)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="`factor` must .* Received: factor=1.5"):
        BilinearUpsampling(1.5)
    with pytest.raises(ValueError, match="`factor` must be even. Received: factor=3"):
        SubpixelConv2DTranspose(2, 3)


def test_subpixel_harness(tmp_path) -> None:
    maps = RNG.normal(size=(2, 5, 7, 6)).astype("float32")
    config = {"filters": 3, "factor": 2, "activation": "tanh", "use_bias": False}
    run_layer_test(SubpixelConv2DTranspose, config, maps, tmp_path, policies=("mixed_float16",))


@pytest.mark.parametrize("factor", [2, 4])
def test_subpixels_are_those_of_a_transposed_convolution(factor: int) -> None:
    maps = RNG.normal(size=(2, 5, 7, 6)).astype("float32")
    ours = SubpixelConv2DTranspose(3, factor, bias_initializer="normal")
    keras_own = keras.layers.Conv2DTranspose(3, 2 * factor, strides=factor, padding="same")
    for layer in (ours, keras_own):
        layer.build(maps.shape)
    keras_own.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(maps), keras_own(maps), atol=1e-5)


IMAGES = RNG.integers(0, 3000, (2, 9, 14, 3)).astype("float32")


def test_crop_harness(tmp_path) -> None:
    run_layer_test(
        CropLike,
        {},
        [IMAGES / 3000, IMAGES[:, :5, :7] / 3000],
        tmp_path,
    )


def test_fusion_harness(tmp_path) -> None:
    maps = [RNG.normal(size=(2, 16 // f, 24 // f, 8)).astype("float32") for f in (1, 2, 4)]
    run_layer_test(
        FeatureFusion,
        {"filters": 6},
        maps,
        tmp_path,
        apply=lambda layer, x: layer(x),
        policies=("mixed_float16",),
        half_tolerance=6e-2,
    )


def test_fusion_gives_the_maps_of_all_stages() -> None:
    maps = [RNG.normal(size=(2, 16 // f, 24 // f, 8)).astype("float32") for f in (1, 2, 4)]
    fusion = FeatureFusion(6, return_pyramid=True)
    fused = fusion(maps)
    assert [x.shape for x in fused] == [(2, 16, 24, 6), (2, 8, 12, 6), (2, 4, 6, 6)]
    assert fusion.compute_output_shape([x.shape for x in maps]) == [tuple(x.shape) for x in fused]
    finest = FeatureFusion.from_config({**fusion.get_config(), "return_pyramid": False})
    finest.build([x.shape for x in maps])
    finest.set_weights(fusion.get_weights())
    np.testing.assert_array_equal(finest(maps), fused[0])

    with pytest.raises(ValueError, match="`filters` must"):
        FeatureFusion(0)
    with pytest.raises(ValueError, match="no such"):
        FeatureFusion(lateral_initializer="no such")
    with pytest.raises(ValueError, match="must be a list of maps"):
        FeatureFusion()(np.zeros((1, 8, 8, 3), "float32"))


def test_large_features_do_not_drown_what_comes_from_above() -> None:
    """A pretrained network gives fine features of several times the size of the coarse ones."""
    maps = [RNG.normal(size=(2, 16 // f, 24 // f, 8)).astype("float32") for f in (1, 2, 4)]
    noisy = [30 * maps[0] + 7, -20 * maps[1], maps[2]]
    fusion = FeatureFusion(6, lateral_initializer="zeros")
    np.testing.assert_array_equal(fusion(maps), fusion(noisy))
    assert np.abs(fusion([*maps[:2], 2 * maps[2]]) - fusion(maps)).max() > 0
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(fusion(maps) ** 2)
    # They come in as training goes.
    for gradient in tape.gradient(total, [lateral.kernel.value for lateral in fusion.laterals]):
        assert np.abs(gradient).max() > 0
