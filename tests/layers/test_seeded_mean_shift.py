import keras
import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test

from keras_rpe.layers import MeanShiftRNN, SeededMeanShift


def _map(height: int = 9, width: int = 11, depth: int = 4, seed: int = 0) -> np.ndarray:
    """Embeddings near one axis for each quarter of the map, but for a strip along the bottom."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    group = 2 * (rows > height // 3) + (columns > width // 2)
    group[-2:] = depth - 1
    x = np.eye(depth)[group] + 0.05 * rng.normal(size=(2, height, width, depth))
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


@pytest.mark.parametrize("config", [{}, {"window_size": 4, "max_seeds": 20}])
def test_harness(config: dict, tmp_path) -> None:
    run_layer_test(SeededMeanShift, {"bandwidth": 0.3, **config}, _map(), tmp_path, trains=False)


def test_point_lists(tmp_path) -> None:
    config = {"max_iterations": 3, "mode_similarity": 0.9}
    run_layer_test(SeededMeanShift, config, _map().reshape(2, 99, 4), tmp_path, trains=False)


def test_harness_with_weights(tmp_path) -> None:
    weights = np.random.default_rng(0).random((2, 18, 22)).astype("float32")
    run_layer_test(
        SeededMeanShift,
        {"window_size": 5},
        [_map(), weights],
        tmp_path,
        apply=lambda layer, inputs: layer(*inputs),
        trains=False,
    )


def test_groups_of_the_exact_layer() -> None:
    x = _map(20, 30, depth=5)
    for window in (None, 8):
        modes = np.asarray(SeededMeanShift(window_size=window)(x))
        exact = np.asarray(MeanShiftRNN(10, window_size=window)(x))
        np.testing.assert_allclose(modes, exact, atol=0.05)
        if window is None:
            assert [len(np.unique(image.reshape(-1, 5), axis=0)) for image in modes] == [5, 5]


def test_pixels_of_no_weight_attract_none_and_get_no_seed() -> None:
    x, weights = _map(), np.ones((2, 9, 11), "float32")
    weights[:, :, 6:] = 0
    y = np.asarray(SeededMeanShift()(x, weights))
    alone = np.asarray(SeededMeanShift()(x[:, :, :6]))
    np.testing.assert_allclose(y[:, :, :6], alone, atol=1e-3)
    left = {mode.tobytes() for mode in y[0, :, :6].reshape(-1, 4)}
    assert {mode.tobytes() for mode in y[0].reshape(-1, 4)} == left
    twice = np.kron(weights, np.ones((1, 2, 2), "float32"))
    np.testing.assert_array_equal(SeededMeanShift()(x, twice), y)
    flat = SeededMeanShift()(x.reshape(2, 99, 4), weights.reshape(2, 99))
    np.testing.assert_array_equal(np.asarray(flat).reshape(x.shape), y)


def test_windows_are_grouped_each_for_itself() -> None:
    x = _map(8, 12)
    y = np.asarray(SeededMeanShift(window_size=4)(x))
    alone = np.asarray(SeededMeanShift()(x[:, 4:8, 8:12]))
    np.testing.assert_allclose(y[:, 4:8, 8:12], alone, atol=1e-5)


def test_bandwidth_of_a_call() -> None:
    x, layer = _map(), SeededMeanShift(bandwidth=3.0)
    wide, narrow = np.asarray(layer(x)), np.asarray(layer(x, bandwidth=0.2))
    np.testing.assert_allclose(narrow, SeededMeanShift(bandwidth=0.2)(x), atol=1e-6)
    np.testing.assert_allclose(layer(x, bandwidth=tf.constant(0.2)), narrow, atol=1e-6)
    assert len(np.unique(wide[0].reshape(-1, 4), axis=0)) == 1


def test_float64_and_half_precision_of_the_loops() -> None:
    x = _map().astype("float64")
    modes = SeededMeanShift(dtype="float64")(x)
    assert keras.backend.standardize_dtype(modes.dtype) == "float64"
    half = SeededMeanShift(dtype="mixed_float16")(x.astype("float16"))
    assert keras.backend.standardize_dtype(half.dtype) == "float16"
    np.testing.assert_allclose(np.asarray(half, "float64"), modes, atol=5e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_seeds": 0},
        {"max_seeds": 2.5},
        {"max_seeds": True},
        {"max_seeds": 65_537},
        {"max_iterations": 0},
        {"max_iterations": 1001},
        {"window_size": 0},
        {"window_size": -1},
        {"bandwidth": 0.0},
        {"bandwidth": float("nan")},
        {"bandwidth": float("inf")},
        {"seed_similarity": 1.0},
        {"seed_similarity": -0.1},
        {"mode_similarity": 1.5},
        {"mode_similarity": float("nan")},
    ],
)
def test_wrong_arguments(wrong: dict) -> None:
    name, value = next(iter(wrong.items()))
    sentence = rf"`{name}` must be [^\n]*\. Received: {name}={value}"
    with pytest.raises(ValueError, match=sentence) as error:
        SeededMeanShift(**wrong)
    assert "\n" not in str(error.value)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="must be of shape .* Received: input_shape="):
        SeededMeanShift()(np.zeros((3, 4), "float32"))
    with pytest.raises(ValueError, match="without `window_size`"):
        SeededMeanShift(window_size=2)(np.zeros((1, 3, 4), "float32"))
    with pytest.raises(ValueError, match="with a known D"):
        SeededMeanShift()(keras.Input((8, 8, None)))
