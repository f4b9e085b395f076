import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test

from keras_rpe.layers import (
    CropLike,
    GammaCorrection,
    ImageNormalization,
    PadToMultiple,
)

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


def test_normalization_keeps_16_bits_under_half_precision() -> None:
    layer = ImageNormalization(0, 100, dtype="mixed_float16")
    image = np.linspace(0, 65535, 64).reshape(1, 8, 8, 1)
    x = np.asarray(layer(image))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[..., 0], image[..., 0] / 65535, atol=1e-6)


def test_normalization_errors() -> None:
    with pytest.raises(ValueError, match="`high` must .* Received: high=50"):
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


def test_pad_and_crop_undo_each_other() -> None:
    padded = PadToMultiple(16)(IMAGES)
    assert padded.shape == (2, 16, 16, 3)
    assert not np.asarray(padded)[:, 9:].any()
    np.testing.assert_array_equal(CropLike()(padded, IMAGES), IMAGES)
    with pytest.raises(ValueError, match="`multiple` must"):
        PadToMultiple(0)


PIXELS = np.random.default_rng(0).uniform(0, 1, (2, 6, 5, 3)).astype("float32")


def test_gamma_harness(tmp_path) -> None:
    run_layer_test(GammaCorrection, {"gamma": 0.5}, PIXELS, tmp_path, trains=False)


@pytest.mark.parametrize("gamma", [0.25, 1.0, 2.2])
def test_gamma_powers(gamma: float) -> None:
    x = np.concatenate([PIXELS.ravel(), [0.0, 1 / 255, 1.0]]).astype("float32")
    expected = x.astype("float64") ** gamma
    np.testing.assert_allclose(GammaCorrection(gamma)(x), expected, rtol=1e-5, atol=1e-7)


def test_the_gradient_at_black_is_finite() -> None:
    x = tf.constant([0.0, 1e-30, 0.5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(GammaCorrection(0.25)(x))
    gradient = tape.gradient(y, x).numpy()
    assert np.isfinite(gradient).all()
    assert gradient[2] == pytest.approx(0.25 * 0.5**-0.75, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, float("nan")])
def test_wrong_gamma(gamma: float) -> None:
    with pytest.raises(ValueError, match="`gamma` must .* Received: gamma="):
        GammaCorrection(gamma)
