import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test

from keras_rpe.layers import SphericalEmbedding

FEATURES = np.random.default_rng(0).normal(size=(2, 7, 5, 8)).astype("float32")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"dim": 4}, marks=pytest.mark.slow),
        {"dim": 16, "coordinates": True, "position_periods": [4.0, 9.0]},
    ],
)
def test_harness(config: dict, tmp_path) -> None:
    run_layer_test(SphericalEmbedding, config, FEATURES, tmp_path)


def test_formula() -> None:
    layer = SphericalEmbedding(3, epsilon=0.5)
    result = np.asarray(layer(FEATURES))
    kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    v = FEATURES @ kernel[0, 0] + bias
    np.testing.assert_allclose(
        result, v / (np.linalg.norm(v, axis=-1, keepdims=True) + 0.5), atol=1e-6
    )


def test_coordinates_tell_like_pixels_apart() -> None:
    same = np.ones((1, 6, 6, 4), "float32")
    plain = np.asarray(SphericalEmbedding(4)(same))
    placed = np.asarray(SphericalEmbedding(4, coordinates=True)(same))
    assert np.ptp(plain, axis=(1, 2)).max() < 1e-6 < 1e-2 < np.ptp(placed, axis=(1, 2)).max()
    assert not np.allclose(placed[0, 0, 3], placed[0, 3, 0], atol=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_zero_vectors_stay_zero_with_a_finite_gradient(dtype: str) -> None:
    layer = SphericalEmbedding(3, dtype=dtype)
    x = tf.zeros((1, 2, 2, 4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert not np.asarray(y).any()
    assert np.isfinite(np.asarray(tape.gradient(y, x))).all()


def test_wrong_arguments() -> None:
    for name, wrong in (
        ("dim", {"dim": 1}),
        ("epsilon", {"dim": 3, "epsilon": 0}),
        ("position_periods", {"dim": 5, "position_periods": [4.0]}),
        ("position_periods", {"dim": 4, "position_periods": [0.0]}),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must .* Received: "):
            SphericalEmbedding(**wrong)
    with pytest.raises(ValueError, match="must be of shape"):
        SphericalEmbedding(3)(np.zeros((2, 3), "float32"))
