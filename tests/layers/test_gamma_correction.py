import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test

from keras_rpe.layers import GammaCorrection

PIXELS = np.random.default_rng(0).uniform(0, 1, (2, 6, 5, 3)).astype("float32")


def test_layer(tmp_path) -> None:
    run_layer_test(GammaCorrection, {"gamma": 0.5}, PIXELS, tmp_path, trains=False)


@pytest.mark.parametrize("gamma", [0.25, 1.0, 2.2])
def test_powers(gamma: float) -> None:
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


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("inf"), float("nan")])
def test_wrong_powers(gamma: float) -> None:
    with pytest.raises(ValueError, match="`gamma` must be positive and finite. Received: gamma="):
        GammaCorrection(gamma)
