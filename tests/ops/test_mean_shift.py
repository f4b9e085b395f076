import numpy as np
import pytest
import tensorflow as tf
from harness import largest_tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import dense_mean_shift, unit_points

from keras_rpe.ops import mean_shift


# With blocks of 8 points, a segment has up to 8 blocks, and 300 points are 5 segments.
@pytest.mark.parametrize("n", [1, 7, 9, 23, 65, 150, 300])
@pytest.mark.parametrize(
    ("step_size", "implementation"), [(1.0, "tiles"), (0.4, "tiles"), (0.4, "rows")]
)
def test_equals_the_dense_kernel_for_any_number_of_points(
    n: int, step_size: float, implementation: str
) -> None:
    x = unit_points((3, n, 5), seed=n, spread=0.4)
    y = mean_shift(x, 0.3, 3, step_size, block_size=8, implementation=implementation)
    for result, points in zip(np.asarray(y), x):
        np.testing.assert_allclose(result, dense_mean_shift(points, 0.3, 3, step_size), atol=1e-12)


def test_golden_step() -> None:
    x = np.array([[[1, 0, 0], [0.8, 0.6, 0], [0, 0.6, 0.8], [0, 0, 1]]], "float32")
    one = np.asarray(mean_shift(x, bandwidth=6**-0.5, iterations=1))[0]
    np.testing.assert_allclose(one[0], [0.989386, 0.145267, 0.003557], atol=1e-6)
    np.testing.assert_allclose(one[1], [0.873673, 0.486264, 0.015609], atol=1e-6)
    one = np.asarray(mean_shift(x, bandwidth=0.2, iterations=1))[0]
    np.testing.assert_allclose(one[0], [0.999992, 0.004021, 0], atol=1e-6)
    np.testing.assert_allclose(one[1], [0.802406, 0.596778, 0], atol=1e-6)


def test_return_sequences_are_the_loops() -> None:
    x = unit_points((2, 30, 4), spread=0.5)
    sequence = np.asarray(mean_shift(x, 0.4, 4, return_sequences=True, block_size=8))
    assert sequence.shape == (4, 2, 30, 4)
    for t in range(4):
        np.testing.assert_allclose(sequence[t, 1], dense_mean_shift(x[1], 0.4, t + 1), atol=1e-12)


def test_weights_say_who_attracts() -> None:
    x = unit_points((1, 20, 3), spread=0.6)
    weights = np.random.default_rng(1).uniform(0, 2, (1, 20, 1))
    weights[0, 5:9] = 0
    y = np.asarray(mean_shift(x, 0.5, 2, weights=weights, block_size=8))[0]
    np.testing.assert_allclose(y, dense_mean_shift(x[0], 0.5, 2, 1.0, weights[0, :, 0]), atol=1e-12)


def _gradients(x: np.ndarray, bandwidth: float, target: np.ndarray, **kwargs):
    x, bandwidth = tf.constant(x), tf.constant(bandwidth, x.dtype)
    with tf.GradientTape() as tape:
        tape.watch([x, bandwidth])
        loss = tf.reduce_sum(mean_shift(x, bandwidth, **kwargs) * target)
    return [np.asarray(g) for g in tape.gradient(loss, [x, bandwidth])]


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize(
    ("step_size", "weighted", "implementation"),
    [(1.0, False, "tiles"), (0.6, True, "tiles"), (0.6, True, "rows")],
)
def test_gradient_equals_finite_differences(
    step_size: float, weighted: bool, implementation: str, sequences: bool
) -> None:
    rng = np.random.default_rng(0)
    x = unit_points((1, 19, 4), spread=0.5)
    weights = rng.uniform(0.1, 2, (1, 19, 1)) if weighted else None
    target = rng.normal(size=(3, 1, 19, 4) if sequences else (1, 19, 4))
    kwargs = {
        "iterations": 3,
        "step_size": step_size,
        "weights": weights,
        "return_sequences": sequences,
        "block_size": 8,
        "implementation": implementation,
    }

    graph = tf.function(
        lambda x, bandwidth: mean_shift(x, bandwidth, **kwargs),
        input_signature=[tf.TensorSpec(x.shape, "float64"), tf.TensorSpec((), "float64")],
    )

    def loss(x: np.ndarray, bandwidth: float) -> float:
        return float(np.sum(graph(x, bandwidth).numpy() * target))

    dx, dbandwidth = _gradients(x, 0.4, target, **kwargs)
    step = 1e-5
    numeric = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        delta = np.zeros_like(x)
        delta[index] = step
        numeric[index] = (loss(x + delta, 0.4) - loss(x - delta, 0.4)) / (2 * step)
    assert np.abs(dx - numeric).max() <= 1e-6 * np.abs(numeric).max()
    slope = (loss(x, 0.4 + step) - loss(x, 0.4 - step)) / (2 * step)
    assert abs(dbandwidth - slope) <= 1e-6 * abs(slope)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 10**6))
def test_permutation_and_rotation_equivariance(n: int, depth: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = unit_points((1, n, depth), seed=seed, spread=0.7)
    rotation, _ = np.linalg.qr(rng.normal(size=(depth, depth)))
    order = rng.permutation(n)
    y = np.asarray(mean_shift(x, 0.4, 3, block_size=8))
    moved = np.asarray(mean_shift(x[:, order] @ rotation, 0.4, 3, block_size=8))
    np.testing.assert_allclose(moved, y[:, order] @ rotation, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.sampled_from([0.05, 0.2, 1.0, 30.0]), st.integers(0, 10**6))
def test_results_are_unit_and_finite(n: int, bandwidth: float, seed: int) -> None:
    x = unit_points((1, n, 3), seed=seed).astype("float32")
    y = np.asarray(mean_shift(x, bandwidth, 4, block_size=8))
    lengths = np.linalg.norm(y, axis=-1)
    # A wide kernel may bring opposite points to a mean without direction, which stays short.
    assert np.all(np.isfinite(y))
    assert np.all(lengths < 1 + 1e-4)
    if bandwidth <= 0.2:
        np.testing.assert_allclose(lengths, 1, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 30.0, 1e4])
def test_points_off_the_sphere_never_give_nan(scale: float) -> None:
    x = (scale * unit_points((1, 33, 4))).astype("float32")
    dx, _ = _gradients(x, 0.1, np.ones_like(x), iterations=3, block_size=8)
    assert np.all(np.isfinite(np.asarray(mean_shift(x, 0.1, 3, block_size=8))))
    assert np.all(np.isfinite(dx))


@pytest.mark.parametrize("implementation", ["tiles", "rows"])
def test_no_quadratic_tensor_is_kept(implementation: str) -> None:
    """No tensor of the traced forward and backward graph has N x N elements."""
    n, block = 2048, 64

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = mean_shift(x, 0.2, 3, block_size=block, implementation=implementation)
            loss = tf.reduce_sum(y**4)
        return tape.gradient(loss, x)

    graph = step.get_concrete_function(tf.TensorSpec((1, n, 8))).graph
    assert 8 * block**2 <= largest_tensor(graph) <= n * block  # At least the tiles of a step.


@pytest.mark.parametrize(("implementation", "size"), [("tiles", 8), ("rows", 100), ("rows", None)])
def test_known_and_dynamic_shapes_agree(implementation: str, size: int | None) -> None:
    x = tf.constant(unit_points((2, 260, 4), spread=0.5))

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = mean_shift(x, 0.3, 2, block_size=size, implementation=implementation)
            loss = tf.reduce_sum(y**3)
        return y, tape.gradient(loss, x)

    known = tf.function(step)(x)
    dynamic = tf.function(step, input_signature=[tf.TensorSpec((None, None, 4), x.dtype)])(x)
    for a, b in zip(known, dynamic):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_many_short_lists_are_taken_in_groups() -> None:
    x = unit_points((70, 130, 3), spread=0.5)
    y = np.asarray(tf.function(lambda x: mean_shift(x, 0.4, 2))(x))
    for i in (0, 31, 69):
        np.testing.assert_allclose(y[i], dense_mean_shift(x[i], 0.4, 2), atol=1e-12)


def test_no_lists_and_no_points() -> None:
    for shape in ((0, 20, 3), (2, 0, 3)):
        for implementation in ("tiles", "rows"):
            x = np.zeros(shape, "float32")
            assert mean_shift(x, 0.4, 2, implementation=implementation).shape == shape


def test_unknown_and_absent_implementations() -> None:
    for name in ("dense", "attention"):  # TensorFlow has no fused attention.
        with pytest.raises(ValueError, match=f"`implementation` must be .*{name}"):
            mean_shift(np.zeros((1, 3, 3), "float32"), implementation=name)


def test_xla_with_dynamic_shapes_has_the_same_gradient() -> None:
    x = unit_points((2, 37, 4), spread=0.5).astype("float32")

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(mean_shift(x, 0.3, 4, block_size=16, return_sequences=True) ** 3)
        return tape.gradient(loss, x)

    signature = [tf.TensorSpec((None, None, 4))]
    plain = tf.function(step, input_signature=signature)(x)
    compiled = tf.function(step, input_signature=signature, jit_compile=True)(x)
    np.testing.assert_allclose(compiled, plain, atol=1e-4)
