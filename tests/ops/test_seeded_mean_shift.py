import functools
import sys
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from harness import largest_tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import unit_points

from keras_rpe.ops import seeded_mean_shift


def _groups(
    sizes: list[int], depth: int, noise: float = 0.05, seed: int = 0, apart: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled points around centres of cosines below `apart`, and the group of each."""
    rng = np.random.default_rng(seed)
    centers: list[np.ndarray] = []
    while len(centers) < len(sizes):
        center = rng.normal(size=depth)
        center /= np.linalg.norm(center)
        if all(center @ other < apart for other in centers):
            centers.append(center)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = np.array(centers)[truth] + noise * rng.normal(size=(len(truth), depth))
    return x / np.linalg.norm(x, axis=-1, keepdims=True), truth


def _partition(modes: np.ndarray, cosine: float = 0.9999) -> np.ndarray:
    """Number the modes by first appearance: equal for equal partitions."""
    found: list[np.ndarray] = []
    numbers = []
    for mode in modes:
        near = [i for i, other in enumerate(found) if other @ mode > cosine]
        numbers.append(near[0] if near else len(found))
        if not near:
            found.append(mode)
    return np.array(numbers)


def _numbers(labels: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


@functools.cache
def _graph(depth: int, dtype: str, **kwargs) -> Callable:
    points, weights = (tf.TensorSpec((None, None, width), dtype) for width in (depth, 1))

    @tf.function(input_signature=[points, weights, tf.TensorSpec((), dtype)])
    def graph(x, weights, bandwidth):
        return seeded_mean_shift(x, bandwidth, weights=weights, **kwargs)

    return graph


def _grouped(
    x: np.ndarray, bandwidth: float = 0.2, weights: np.ndarray | None = None, **kwargs
) -> np.ndarray:
    """Group one list of points in a graph, which is faster than the same operations one by one."""
    weights = np.ones(len(x)) if weights is None else weights
    graph = _graph(x.shape[-1], x.dtype.name, **kwargs)
    return graph(x[None], weights[None, :, None].astype(x.dtype), bandwidth)[0].numpy()


def _modes_of_all_points(x: np.ndarray, bandwidth: float, weights: np.ndarray) -> np.ndarray:
    """Mean shift of every point among points that stay where they are, to convergence."""
    y = x
    for _ in range(1000):
        mean = (np.exp((y @ x.T - 1) / bandwidth**2) * weights) @ x
        mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
        if np.abs(mean - y).max() < 1e-12:
            return mean
        y = mean
    raise AssertionError("no convergence")


@pytest.mark.parametrize(
    ("sizes", "depth"),
    [([40, 40], 2), ([30, 70, 200, 3, 45, 1], 6), ([1] * 50, 16), ([9] * 40, 16)],
)
def test_partition_and_modes_of_a_search_from_every_point(sizes: list[int], depth: int) -> None:
    x, truth = _groups(sizes, depth)
    expected = _modes_of_all_points(x, 0.2, np.ones(len(x)))
    modes = _grouped(x)
    np.testing.assert_array_equal(_partition(modes), _numbers(truth))
    np.testing.assert_array_equal(_partition(expected), _numbers(truth))
    assert np.sum(modes * expected, axis=-1).min() > 1 - 1e-3


def test_weights_say_who_attracts_and_who_needs_a_seed() -> None:
    x, truth = _groups([80, 60, 40], 6, noise=0.08)
    weights = np.random.default_rng(1).uniform(0.5, 1, len(x))
    weights[truth == 2] = 0.2
    modes = _grouped(x, weights=weights)
    # The points of little weight take the nearest mode of the others.
    heavy = truth != 2
    expected = _modes_of_all_points(x[heavy], 0.2, weights[heavy])
    assert len(np.unique(modes, axis=0)) == 2
    np.testing.assert_array_equal(_partition(modes[heavy]), _numbers(truth[heavy]))
    assert np.sum(modes[heavy] * expected, axis=-1).min() > 1 - 1e-3
    nearest = np.argmax(x[~heavy] @ np.stack([modes[truth == 0][0], modes[truth == 1][0]]).T, 1)
    for mode, which in zip(modes[~heavy], nearest):
        np.testing.assert_array_equal(mode, modes[truth == which][0])


def test_light_points_pull_no_mode() -> None:
    x, truth = _groups([3000, 2500], 3, noise=0.08)
    weights = np.where(x[:, 0] > np.median(x[:, 0]), 0.45, np.linspace(0.5, 1, len(x)))
    heavy = weights >= 0.5
    assert heavy.sum() > 2048  # More than a block of them, scattered among the others.
    modes = _grouped(x, weights=weights, max_iterations=100, tolerance=1e-12)
    for group in (0, 1):
        mode = modes[truth == group][0]
        mean = (np.exp((x @ mode - 1) / 0.2**2) * weights * heavy) @ x
        np.testing.assert_allclose(mode, mean / np.linalg.norm(mean), atol=1e-5)


def test_each_list_is_grouped_for_itself() -> None:
    lists = [_groups(sizes, 6, seed=s)[0] for s, sizes in enumerate(([90] * 2, [20] * 9, [180]))]
    together = np.asarray(seeded_mean_shift(np.stack(lists)))
    for result, x in zip(together, lists):
        alone = _grouped(x)
        np.testing.assert_array_equal(_partition(result), _partition(alone))
        np.testing.assert_allclose(result, alone, atol=0.05)


def test_no_group_of_thirty_points_is_lost_among_sixty() -> None:
    sizes = [30] * 20 + [100] * 20 + [400] * 15 + [3000] * 5
    x, truth = _groups(sizes, 16, noise=0.05, apart=0.55)
    modes = _grouped(x.astype("float32"), max_seeds=512)
    found = np.unique(modes, axis=0, return_inverse=True)[1].ravel()
    table = np.zeros((60, found.max() + 1), int)
    np.add.at(table, (truth, found), 1)
    assert sorted(set(table.argmax(axis=0))) == list(range(60))
    assert table.max(axis=1).sum() > 0.995 * len(x)


def test_a_small_group_is_found_wherever_it_lies_in_a_long_list() -> None:
    x, truth = _groups([70_000, 30], 6)
    order = np.argsort(truth, kind="stable")
    for start in (0, 69_000, 70_000):
        moved = np.roll(x[order], start, axis=0)
        modes = _grouped(moved)
        np.testing.assert_array_equal(_partition(modes), _numbers(np.roll(truth[order], start)))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.sampled_from([2, 6]),
    st.integers(0, 10**6),
)
def test_permutation_and_rotation_invariance(sizes: list[int], depth: int, seed: int) -> None:
    sizes = sizes[: 3 if depth == 2 else 8]
    x, truth = _groups(sizes, depth, noise=0.04, seed=seed)
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(depth, depth)))
    order = rng.permutation(len(x))
    moved = _grouped(x[order] @ rotation)
    np.testing.assert_array_equal(_partition(moved), _numbers(truth[order]))
    agreement = np.sum(moved @ rotation.T * _grouped(x)[order], axis=-1)
    assert agreement.min() > 1 - 5e-3


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 60),
    st.sampled_from([0.01, 0.2, 3.0]),
    st.sampled_from([1, 5, 256]),
    st.integers(0, 10**6),
)
def test_points_without_groups_give_unit_modes(
    n: int, bandwidth: float, max_seeds: int, seed: int
) -> None:
    x = unit_points((n, 2), seed=seed)
    modes = _grouped(x, bandwidth, max_seeds=max_seeds)
    np.testing.assert_allclose(np.linalg.norm(modes, axis=-1), 1, atol=1e-4)
    assert len(np.unique(modes, axis=0)) <= max_seeds


@pytest.mark.parametrize("max_seeds", [1, 33])
def test_points_beyond_the_last_seed_take_the_nearest_mode(max_seeds: int) -> None:
    x, _ = _groups([20] * 60, 16)
    modes = _grouped(x, max_seeds=max_seeds)
    found = np.unique(modes, axis=0)
    assert 1 <= len(found) <= max_seeds
    np.testing.assert_allclose(np.sum(x * modes, axis=-1), (x @ found.T).max(axis=1), atol=1e-9)


def test_nobody_needs_a_seed() -> None:
    x, _ = _groups([20, 30], 6)
    for weights in (np.zeros(50), np.full(50, 0.49)):
        np.testing.assert_array_equal(_grouped(x, weights=weights), x)
    assert seeded_mean_shift(np.zeros((1, 0, 4), "float32")).shape == (1, 0, 4)
    assert seeded_mean_shift(np.zeros((0, 7, 4), "float32")).shape == (0, 7, 4)


def test_zero_vectors_form_no_group() -> None:
    x, truth = _groups([40, 40], 6)
    x[::3] = 0
    modes = _grouped(x)
    assert np.all(np.isfinite(modes))
    there = np.any(x != 0, axis=-1)
    np.testing.assert_array_equal(_partition(modes[there]), _numbers(truth[there]))
    assert len(np.unique(modes, axis=0)) == 2
    np.testing.assert_array_equal(_grouped(np.zeros((9, 6))), np.zeros((9, 6)))


@pytest.mark.parametrize("scale", [1e-30, 1e4])
def test_points_off_the_sphere_are_finite(scale: float) -> None:
    x = scale * unit_points((70, 6))
    assert np.all(np.isfinite(_grouped(x, 0.1)))


def test_loops_end_when_no_seed_moves() -> None:
    """A bound of loops that would take hours costs nothing."""
    x, truth = _groups([300, 500, 20], 6)
    modes = np.asarray(seeded_mean_shift(x[None], max_iterations=10**8))[0]
    np.testing.assert_array_equal(_partition(modes), _numbers(truth))
    np.testing.assert_allclose(modes, _grouped(x), atol=1e-12)


def test_no_gradient_flows() -> None:
    x = tf.constant(_groups([9, 9], 3)[0][None])
    bandwidth = tf.constant(0.2, x.dtype)
    with tf.GradientTape() as tape:
        tape.watch([x, bandwidth])
        loss = tf.reduce_sum(seeded_mean_shift(x, bandwidth) ** 2)
    assert tape.gradient(loss, [x, bandwidth]) == [None, None]


@pytest.mark.parametrize("compiled", [False, True])
def test_dynamic_shapes(compiled: bool) -> None:
    signature = [tf.TensorSpec((None, None, 6)), tf.TensorSpec((None, None, 1))]

    @tf.function(input_signature=signature, jit_compile=compiled)
    def graph(x, weights):
        return seeded_mean_shift(x, weights=weights)

    for batch, sizes in ((1, [1]), (3, [40, 30, 7]), (2, [5000, 90])):
        x = np.stack([_groups(sizes, 6, seed=s)[0] for s in range(batch)]).astype("float32")
        weights = np.ones((*x.shape[:2], 1), "float32")
        np.testing.assert_allclose(
            graph(x, weights), seeded_mean_shift(x, weights=weights), atol=1e-4
        )


def test_no_tensor_grows_with_the_number_of_modes() -> None:
    """Memory is bounded by a block of seeds for each point, whatever `max_seeds` is."""
    n = 4096
    shift = tf.function(lambda x: seeded_mean_shift(x, max_seeds=500))
    graph = shift.get_concrete_function(tf.TensorSpec((1, n, 8))).graph
    assert n * 32 <= largest_tensor(graph) <= 512 * 512


def _lists_of_many_and_of_few_modes() -> tuple[np.ndarray, np.ndarray]:
    lists = [_groups([40] * 30, 8, seed=1), _groups([1200], 8, noise=0.3), _groups([600, 600], 8)]
    x = np.stack([points for points, _ in lists]).astype("float32")
    weights = np.ones((3, 1200, 1), "float32")
    weights[1, :1190], x[1, 1195:] = 0, 0  # Hardly any weight, and zeros.
    return x, weights


def test_no_list_depends_on_the_others_of_its_batch() -> None:
    x, weights = _lists_of_many_and_of_few_modes()
    together = np.asarray(seeded_mean_shift(x, 0.3, weights=weights, tolerance=1e-2))
    for k in range(3):
        alone = seeded_mean_shift(x[k : k + 1], 0.3, weights=weights[k : k + 1], tolerance=1e-2)
        np.testing.assert_allclose(alone[0], together[k], atol=1e-5)


def test_points_of_no_weight_stay_whatever_other_lists_have() -> None:
    x = np.stack([_groups([60, 60], 6, seed=s)[0] for s in range(2)]).astype("float32")
    weights = np.ones((2, 120, 1), "float32")
    weights[0, ::3], weights[1, 10:] = 1e-3, 0
    modes = np.asarray(seeded_mean_shift(x, weights=weights))
    none = weights[..., 0] < 1 / 256
    np.testing.assert_array_equal(modes[none], x[none])
    assert not (modes[~none] == x[~none]).all(axis=-1).any()


def test_guards_that_a_file_in_float16_rounds_to_0_make_no_nan(monkeypatch) -> None:
    x, weights = _lists_of_many_and_of_few_modes()
    expected = np.asarray(seeded_mean_shift(x, weights=weights))
    for module in ("mean_shift", "seeded_mean_shift"):
        # The functions of the package have the names of their modules.
        monkeypatch.setattr(sys.modules[f"keras_rpe.ops.{module}"], "SHORTEST", 0.0)
    found = np.asarray(seeded_mean_shift(x, weights=weights))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, atol=1e-5)
