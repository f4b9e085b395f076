import keras
import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.layers import (
    BatchStatisticsNormalization,
    CropLike,
    GammaCorrection,
    ImageNormalization,
    PadToMultiple,
)
from keras_rpe.layers.images import _percentiles

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 3000, (2, 9, 14, 3)).astype("float32")
PIXELS = RNG.uniform(0, 1, (2, 6, 5, 3)).astype("float32")


@pytest.mark.parametrize(
    "channels", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4))]
)
def test_normalization_harness(channels: int, tmp_path) -> None:
    images = np.resize(IMAGES, (2, 9, 14, channels))
    run_layer_test(
        ImageNormalization, {"low": 2.0, "high": 99.0}, images, tmp_path, trains=False, policies=()
    )


def test_normalization_equals_numpy_for_colors_and_transparent_ones() -> None:
    x = np.asarray(ImageNormalization(5, 95)(IMAGES))
    for result, image in zip(x, IMAGES):
        gray = image.mean(axis=-1)
        low, high = np.percentile(gray, [5, 95], method="nearest")
        np.testing.assert_allclose(result, np.clip((image - low) / (high - low), 0, 1), atol=1e-5)
    with_alpha = np.concatenate([IMAGES, IMAGES[..., :1]], axis=-1)
    np.testing.assert_array_equal(ImageNormalization(5, 95)(with_alpha), x)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999), kind=st.sampled_from(["ties", "tails", "tiny", "one"]))
def test_normalization_finds_percentiles_of_any_values(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    images = {
        "ties": rng.integers(-2, 3, (2, 8, 8, 1)),
        "tails": np.sinh(rng.normal(size=(2, 8, 8, 1)) * 20),
        "tiny": 1.0 + rng.integers(0, 9, (2, 8, 8, 1)) * 2.0**-23,
        "one": np.full((2, 8, 8, 1), rng.normal()),
    }[kind].astype("float32")
    found = _percentiles(images.reshape(2, 64), (3.0, 70.0))
    wanted = np.percentile(images, [3, 70], axis=(1, 2, 3), method="nearest").T
    np.testing.assert_array_equal(found, wanted)


def test_normalization_ends_on_what_is_no_number() -> None:
    image = np.full((1, 4, 4, 1), np.nan, "float32")
    assert np.isnan(ImageNormalization()(image)).all()


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


@pytest.mark.parametrize("mode", [pytest.param("zeros", marks=pytest.mark.slow), "reflect"])
def test_pad_harness(mode: str, tmp_path) -> None:
    config = {"multiple": 8, "mode": mode}
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


def test_gamma_harness(tmp_path) -> None:
    run_layer_test(GammaCorrection, {"gamma": 0.5}, PIXELS, tmp_path, trains=False)


@pytest.mark.parametrize("gamma", [0.25, 1.0, 2.2])
def test_gamma_powers_have_a_finite_gradient_at_black(gamma: float) -> None:
    x = np.array([*PIXELS.ravel(), 0.0, 1e-30, 1 / 255, 1.0, 0.5], "float32")
    with tf.GradientTape() as tape:
        tape.watch(tensor := tf.constant(x))
        y = GammaCorrection(gamma)(tensor)
    there = (x == 0) | (x > 1e-12)
    np.testing.assert_allclose(y[there], x[there].astype("float64") ** gamma, rtol=1e-5, atol=1e-7)
    gradient = tape.gradient(y, tensor).numpy()
    assert np.isfinite(gradient).all()
    assert gradient[-1] == pytest.approx(gamma * 0.5 ** (gamma - 1), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, float("nan")])
def test_wrong_gamma(gamma: float) -> None:
    with pytest.raises(ValueError, match="`gamma` must .* Received: gamma="):
        GammaCorrection(gamma)


def _normalized(x: np.ndarray, epsilon: float) -> np.ndarray:
    x = x.astype("float64")
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + epsilon)


def test_batch_statistics_harness(tmp_path) -> None:
    config = {"epsilon": 1e-3, "momentum": 0.9}
    run_layer_test(BatchStatisticsNormalization, config, PIXELS, tmp_path)


@pytest.mark.parametrize(("batch", "training"), [(1, False), (2, False), (2, True)])
def test_batch_statistics_normalize_and_leave_the_moving_ones(batch: int, training: bool) -> None:
    x = 50.0 + 7.0 * PIXELS[:batch]
    layer = BatchStatisticsNormalization(epsilon=1e-3)
    layer.trainable = not training  # A frozen layer in training does as in prediction.
    np.testing.assert_allclose(layer(x, training=training), _normalized(x, 1e-3), atol=1e-4)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))
    np.testing.assert_array_equal(layer.moving_variance, np.ones(3))


def test_training_by_batch_statistics_is_that_of_batch_normalization() -> None:
    ours, theirs = BatchStatisticsNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_allclose(
        ours(PIXELS, training=True), theirs(PIXELS, training=True), atol=1e-6
    )
    for a, b in zip(ours.weights, theirs.weights):
        np.testing.assert_allclose(a, b, atol=1e-7)
