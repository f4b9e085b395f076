"""The small layers around a backbone."""

import numpy as np
import pytest
from harness import run_layer_test

from keras_rpe.layers import CropLike, FeatureFusion, ImageNormalization, PadToMultiple

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 3000, (2, 9, 14, 3)).astype("float32")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_normalization_harness(channels: int, tmp_path) -> None:
    images = np.resize(IMAGES, (2, 9, 14, channels))
    run_layer_test(
        ImageNormalization, {"low": 2.0, "high": 99.0}, images, tmp_path, trains=False, policies=()
    )


def test_normalization_equals_numpy() -> None:
    x = np.asarray(ImageNormalization(5, 95)(IMAGES))
    for result, image in zip(x, IMAGES):
        gray = image.mean(axis=-1)
        low, high = np.percentile(gray, [5, 95], method="nearest")
        np.testing.assert_allclose(result, np.clip((image - low) / (high - low), 0, 1), atol=1e-5)


def test_normalization_ignores_the_scale_and_survives_constant_images() -> None:
    layer = ImageNormalization()
    np.testing.assert_allclose(layer(IMAGES), layer(20 * IMAGES + 7), atol=1e-5)
    assert not np.asarray(layer(np.full((1, 4, 4, 1), 65535, "uint16"))).any()


def test_normalization_keeps_16_bits_under_half_precision() -> None:
    layer = ImageNormalization(0, 100, dtype="mixed_float16")
    image = np.linspace(0, 65535, 64).reshape(1, 8, 8, 1)
    x = np.asarray(layer(image))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[..., 0], image[..., 0] / 65535, atol=1e-6)


def test_normalization_errors() -> None:
    with pytest.raises(ValueError, match="`low` and `high` must"):
        ImageNormalization(50, 50)
    with pytest.raises(ValueError, match="Images must be of shape"):
        ImageNormalization()(np.zeros((1, 4, 4, 2), "float32"))


def test_pad_harness(tmp_path) -> None:
    run_layer_test(PadToMultiple, {"multiple": 8}, IMAGES / 3000, tmp_path, half_tolerance=1e-2)


def test_reflecting_pad_harness(tmp_path) -> None:
    config = {"multiple": 8, "mode": "reflect"}
    run_layer_test(PadToMultiple, config, IMAGES / 3000, tmp_path, half_tolerance=1e-2)


def test_reflecting_pad_mirrors_as_often_as_it_takes() -> None:
    row = np.arange(3.0, dtype="float32").reshape(1, 1, 3, 1)
    padded = np.asarray(PadToMultiple(8, mode="reflect")(row))
    assert padded[0, 5, :, 0].tolist() == [0, 1, 2, 2, 1, 0, 0, 1]
    with pytest.raises(ValueError, match="`mode` must be 'zeros' or 'reflect'"):
        PadToMultiple(8, mode="edge")


def test_crop_harness(tmp_path) -> None:
    run_layer_test(
        CropLike,
        {},
        [IMAGES / 3000, IMAGES[:, :5, :7] / 3000],
        tmp_path,
        apply=lambda layer, inputs: layer(*inputs),
    )


def test_pad_and_crop_undo_each_other() -> None:
    padded = PadToMultiple(16)(IMAGES)
    assert padded.shape == (2, 16, 16, 3)
    assert not np.asarray(padded)[:, 9:].any()
    np.testing.assert_array_equal(CropLike()(padded, IMAGES), IMAGES)
    with pytest.raises(ValueError, match="`multiple` must"):
        PadToMultiple(0)


def test_fusion_harness(tmp_path) -> None:
    maps = [RNG.normal(size=(2, 16 // f, 24 // f, 8)).astype("float32") for f in (1, 2, 4)]
    run_layer_test(FeatureFusion, {"filters": 6}, maps, tmp_path, half_tolerance=6e-2)


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


def test_fusion_errors() -> None:
    with pytest.raises(ValueError, match="`filters` must"):
        FeatureFusion(0)
    with pytest.raises(ValueError, match="must be a list of maps"):
        FeatureFusion()(np.zeros((1, 8, 8, 3), "float32"))
