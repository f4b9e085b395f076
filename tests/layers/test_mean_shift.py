import keras
import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test
from reference import dense_mean_shift, unit_points

from keras_rpe.layers import MeanShiftRNN, SeededMeanShift


def _clusters(height: int = 9, width: int = 11, depth: int = 4) -> np.ndarray:
    return unit_points((2, height, width, depth), spread=0.3).astype("float32")


_WEIGHTS = np.random.default_rng(0).random((2, 18, 22)).astype("float32")


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        ({"step_size": 0.5, "trainable_bandwidth": True, "window_size": 5}, _WEIGHTS),
        pytest.param({"step_size": 0.5}, None, marks=pytest.mark.slow),
        pytest.param({"return_sequences": True, "window_size": 4}, None, marks=pytest.mark.slow),
    ],
)
def test_harness(config: dict, weights: np.ndarray | None, tmp_path) -> None:
    config = {"iterations": 2, "bandwidth": 0.3, "block_size": 16, **config}
    run_layer_test(
        MeanShiftRNN,
        config,
        _clusters() if weights is None else [_clusters(), weights],
        tmp_path,
        policies=("mixed_float16",),
        half_tolerance=0.1,
    )


def test_an_object_in_two_windows_has_one_mode() -> None:
    rows, columns = np.mgrid[:24, :64]
    x = np.stack([np.cos(columns / 12), np.sin(columns / 12), 0 * rows], -1)
    disc = np.hypot(rows - 12, columns - 33) < 7  # Its embeddings change across the seam at 32.
    x[~disc] = [0, 0, 1]
    apart, linked = (
        np.asarray(SeededMeanShift(window_size=32, window_overlap=n)(x[None].astype("float32")))[0]
        for n in (0, 16)
    )
    across = [(modes[12, 31] * modes[12, 32]).sum() for modes in (apart, linked)]
    assert across[0] < 0.98
    assert across[1] > 0.999


def test_windows_of_a_part_in_turn_are_those_of_the_map_at_once() -> None:
    layer, x = SeededMeanShift(window_size=16, window_overlap=5), _quarters(40, 28)
    weights = np.random.default_rng(2).random((2, 40, 28)).astype("float32")
    whole = np.asarray(layer(x, weights))
    grid = ((14, 0), (14, 0))
    np.testing.assert_allclose(layer(x, weights, grid=grid), whole, atol=1e-6)
    below = layer(x[:, 14 - 5 :], weights[:, 14 - 5 :], grid=((14, 14 - 5), (14, 0)))
    np.testing.assert_allclose(below[:, 5:], whole[:, 14:], atol=1e-6)


def test_pixels_of_no_weight_attract_none() -> None:
    x, weights = _clusters(), np.ones((2, 9, 11), "float32")
    weights[:, :, 6:] = 0
    y = np.asarray(MeanShiftRNN(2, 0.3)(x, weights))
    alone = np.asarray(MeanShiftRNN(2, 0.3)(x[:, :, :6]))
    np.testing.assert_allclose(y[:, :, :6], alone, atol=1e-5)
    twice = np.kron(weights, np.ones((1, 2, 2), "float32"))
    np.testing.assert_allclose(MeanShiftRNN(2, 0.3)(x, twice), y, atol=1e-6)
    flat = MeanShiftRNN(2, 0.3)(x.reshape(2, 99, 4), weights.reshape(2, 99))
    np.testing.assert_allclose(np.asarray(flat).reshape(x.shape), y, atol=1e-6)


def test_equals_the_reference() -> None:
    x = _clusters()
    y = np.asarray(MeanShiftRNN(4, 0.3, block_size=16)(x))
    for result, points in zip(y, x.astype("float64")):
        expected = dense_mean_shift(points.reshape(-1, 4), 0.3, 4).reshape(9, 11, 4)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_windows_are_grouped_each_for_itself() -> None:
    x = _clusters(8, 12)
    y = np.asarray(MeanShiftRNN(2, 0.3, window_size=4)(x))
    alone = np.asarray(MeanShiftRNN(2, 0.3)(x[:, 4:8, 8:12]))
    np.testing.assert_allclose(y[:, 4:8, 8:12], alone, atol=1e-6)
    whole = MeanShiftRNN(2, 0.3, window_size=12)(x)
    np.testing.assert_allclose(whole, MeanShiftRNN(2, 0.3)(x), atol=1e-6)


def test_loops_of_a_call() -> None:
    x, layer = _clusters(), MeanShiftRNN(3, 0.3)
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
    x = tf.constant(_clusters())
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 3)
    (gradient,) = tape.gradient(loss, layer.trainable_variables)
    assert abs(float(gradient)) > 1e-6


@pytest.mark.parametrize(
    ("layer", "wrong"),
    [
        (MeanShiftRNN, {"iterations": 0}),
        (MeanShiftRNN, {"iterations": 2.5}),
        (MeanShiftRNN, {"bandwidth": float("nan")}),
        (MeanShiftRNN, {"step_size": 1.5}),
        (MeanShiftRNN, {"window_size": -1}),
        (MeanShiftRNN, {"block_size": 0}),
        (SeededMeanShift, {"max_seeds": 65_537}),
        (SeededMeanShift, {"max_iterations": 1001}),
        (SeededMeanShift, {"window_size": 0}),
        (SeededMeanShift, {"bandwidth": 0.0}),
        (SeededMeanShift, {"seed_similarity": 1.0}),
        (SeededMeanShift, {"mode_similarity": float("nan")}),
    ],
)
def test_wrong_arguments(layer: type, wrong: dict) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"`{name}` must .* Received: {name}={value}"):
        layer(**wrong)


@pytest.mark.parametrize("layer", [MeanShiftRNN, SeededMeanShift])
def test_wrong_shapes(layer: type) -> None:
    with pytest.raises(ValueError, match="must be of shape .* Received: input_shape="):
        layer()(np.zeros((3, 4), "float32"))
    with pytest.raises(ValueError, match="without `window_size`"):
        layer(window_size=2)(np.zeros((1, 3, 4), "float32"))
    with pytest.raises(ValueError, match="with a known D"):
        layer()(keras.Input((8, 8, None)))


def test_every_golden_loop(golden_root) -> None:
    """The authors' own embeddings after loops 1 to 5, on eight images of digits."""
    golden = np.load(golden_root / "mean_shift_digits_a.npz")["embeddings"][:, :8]
    layer = MeanShiftRNN(iterations=1, bandwidth=0.2)
    for loop in range(4):
        assert np.abs(np.asarray(layer(golden[loop])) - golden[loop + 1]).max() < 1e-4


def _quarters(height: int = 9, width: int = 11, depth: int = 4, seed: int = 0) -> np.ndarray:
    """Embeddings near one axis for each quarter of the map, but for a strip along the bottom."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    group = 2 * (rows > height // 3) + (columns > width // 2)
    group[-2:] = depth - 1
    x = np.eye(depth)[group] + 0.05 * rng.normal(size=(2, height, width, depth))
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        ({"window_size": 5, "window_overlap": 2}, _WEIGHTS),
        pytest.param(
            {"window_size": 4, "max_seeds": 20, "bandwidth": 0.3}, None, marks=pytest.mark.slow
        ),
    ],
)
def test_seeded_harness(config: dict, weights: np.ndarray | None, tmp_path) -> None:
    run_layer_test(
        SeededMeanShift,
        config,
        _quarters() if weights is None else [_quarters(), weights],
        tmp_path,
        policies=("mixed_float16",),
        trains=False,
    )


def test_groups_of_the_exact_layer() -> None:
    x = _quarters(20, 30, depth=5)
    for window in (None, 8):
        modes = np.asarray(SeededMeanShift(window_size=window)(x))
        exact = np.asarray(MeanShiftRNN(10, window_size=window)(x))
        np.testing.assert_allclose(modes, exact, atol=0.05)
        if window is None:
            assert [len(np.unique(image.reshape(-1, 5), axis=0)) for image in modes] == [5, 5]


def test_pixels_of_no_weight_attract_none_and_get_no_seed() -> None:
    x, weights = _quarters(), np.ones((2, 9, 11), "float32")
    weights[:, :, 6:] = 0
    y = np.asarray(SeededMeanShift()(x, weights))
    alone = np.asarray(SeededMeanShift()(x[:, :, :6]))
    np.testing.assert_allclose(y[:, :, :6], alone, atol=1e-3)
    np.testing.assert_array_equal(y[:, :, 6:], x[:, :, 6:])
    light = np.where(weights > 0, weights, 0.1)  # Of some weight, they take the nearest mode.
    moved = np.asarray(SeededMeanShift()(x, light))[0].reshape(-1, 4)
    left = {mode.tobytes() for mode in y[0, :, :6].reshape(-1, 4)}
    assert {mode.tobytes() for mode in moved} == left
    twice = np.kron(weights, np.ones((1, 2, 2), "float32"))
    np.testing.assert_array_equal(SeededMeanShift()(x, twice), y)
    flat = SeededMeanShift()(x.reshape(2, 99, 4), weights.reshape(2, 99))
    np.testing.assert_array_equal(np.asarray(flat).reshape(x.shape), y)


def test_bandwidth_of_a_call() -> None:
    x, layer = _quarters(), SeededMeanShift(bandwidth=3.0)
    wide, narrow = np.asarray(layer(x)), np.asarray(layer(x, bandwidth=0.2))
    np.testing.assert_allclose(narrow, SeededMeanShift(bandwidth=0.2)(x), atol=1e-6)
    np.testing.assert_allclose(layer(x, bandwidth=tf.constant(0.2)), narrow, atol=1e-6)
    assert len(np.unique(wide[0].reshape(-1, 4), axis=0)) == 1


def test_float64_and_half_precision_of_the_loops() -> None:
    x = _quarters().astype("float64")
    modes = SeededMeanShift(dtype="float64")(x)
    assert keras.backend.standardize_dtype(modes.dtype) == "float64"
    half = SeededMeanShift(dtype="mixed_float16")(x.astype("float16"))
    assert keras.backend.standardize_dtype(half.dtype) == "float16"
    np.testing.assert_allclose(np.asarray(half, "float64"), modes, atol=5e-3)
