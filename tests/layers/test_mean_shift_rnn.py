import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test
from reference import dense_mean_shift, unit_points

from keras_rpe.layers import MeanShiftRNN


def _map(height: int = 9, width: int = 11, depth: int = 4) -> np.ndarray:
    return unit_points((2, height, width, depth), spread=0.3).astype("float32")


@pytest.mark.parametrize(
    "config",
    [
        {"iterations": 3, "bandwidth": 0.3},
        {"iterations": 2, "bandwidth": 0.3, "step_size": 0.5, "trainable_bandwidth": True},
        {"iterations": 2, "bandwidth": 0.3, "return_sequences": True, "window_size": 4},
    ],
)
def test_harness(config: dict, tmp_path) -> None:
    run_layer_test(MeanShiftRNN, {"block_size": 16, **config}, _map(), tmp_path, half_tolerance=0.1)


def test_point_lists(tmp_path) -> None:
    x = _map().reshape(2, 99, 4)
    config = {"iterations": 2, "block_size": 16}
    run_layer_test(MeanShiftRNN, config, x, tmp_path, half_tolerance=0.1)


def test_harness_with_weights(tmp_path) -> None:
    weights = np.random.default_rng(0).random((2, 18, 22)).astype("float32")
    run_layer_test(
        MeanShiftRNN,
        {"iterations": 2, "bandwidth": 0.3, "window_size": 5, "block_size": 16},
        [_map(), weights],
        tmp_path,
        apply=lambda layer, inputs: layer(*inputs),
        half_tolerance=0.1,
    )


def test_pixels_of_no_weight_attract_none() -> None:
    x, weights = _map(), np.ones((2, 9, 11), "float32")
    weights[:, :, 6:] = 0
    y = np.asarray(MeanShiftRNN(2, 0.3)(x, weights))
    alone = np.asarray(MeanShiftRNN(2, 0.3)(x[:, :, :6]))
    np.testing.assert_allclose(y[:, :, :6], alone, atol=1e-5)
    twice = np.kron(weights, np.ones((1, 2, 2), "float32"))
    np.testing.assert_allclose(MeanShiftRNN(2, 0.3)(x, twice), y, atol=1e-6)
    flat = MeanShiftRNN(2, 0.3)(x.reshape(2, 99, 4), weights.reshape(2, 99))
    np.testing.assert_allclose(np.asarray(flat).reshape(x.shape), y, atol=1e-6)


def test_equals_the_reference() -> None:
    x = _map()
    y = np.asarray(MeanShiftRNN(4, 0.3, block_size=16)(x))
    for result, points in zip(y, x.astype("float64")):
        expected = dense_mean_shift(points.reshape(-1, 4), 0.3, 4).reshape(9, 11, 4)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_windows_are_grouped_each_for_itself() -> None:
    x = _map(8, 12)
    y = np.asarray(MeanShiftRNN(2, 0.3, window_size=4)(x))
    alone = np.asarray(MeanShiftRNN(2, 0.3)(x[:, 4:8, 8:12]))
    np.testing.assert_allclose(y[:, 4:8, 8:12], alone, atol=1e-6)
    whole = MeanShiftRNN(2, 0.3, window_size=12)(x)
    np.testing.assert_allclose(whole, MeanShiftRNN(2, 0.3)(x), atol=1e-6)


def test_loops_of_a_call() -> None:
    x, layer = _map(), MeanShiftRNN(3, 0.3)
    sequence = np.asarray(layer(x, return_sequences=True))
    np.testing.assert_allclose(sequence[-1], layer(x), atol=1e-6)
    np.testing.assert_allclose(sequence[1], layer(x, iterations=2), atol=1e-6)


def test_is_one_while_op_in_the_graph() -> None:
    layer = MeanShiftRNN(5)
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec((None, None, None, 4))).graph
    loops = [op for op in graph.get_operations() if op.type in ("While", "StatelessWhile")]
    assert len(loops) == 1


def test_bandwidth_is_learned() -> None:
    layer = MeanShiftRNN(2, 0.3, trainable_bandwidth=True)
    x = tf.constant(_map())
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 3)
    (gradient,) = tape.gradient(loss, layer.trainable_variables)
    assert abs(float(gradient)) > 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0},
        {"iterations": 2.5},
        {"bandwidth": 0.0},
        {"bandwidth": float("nan")},
        {"step_size": 0.0},
        {"step_size": 1.5},
        {"window_size": -1},
        {"block_size": 0},
    ],
)
def test_wrong_arguments(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must .* Received: "):
        MeanShiftRNN(**wrong)


def test_wrong_ranks() -> None:
    with pytest.raises(ValueError, match="must be of shape"):
        MeanShiftRNN()(np.zeros((3, 4), "float32"))
    with pytest.raises(ValueError, match="without `window_size`"):
        MeanShiftRNN(window_size=2)(np.zeros((1, 3, 4), "float32"))


def test_every_golden_loop(golden_root) -> None:
    """The authors' own embeddings after loops 1 to 5, on 30 images of digits."""
    golden = np.load(golden_root / "mean_shift_digits_a.npz")["embeddings"]
    layer = MeanShiftRNN(iterations=1, bandwidth=0.2)
    for loop in range(4):
        assert np.abs(np.asarray(layer(golden[loop])) - golden[loop + 1]).max() < 1e-4
