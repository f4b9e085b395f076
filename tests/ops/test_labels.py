import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import regionprops

from keras_rpe.ops.labels import (
    connected_components,
    embedding_links,
    greedy_suppression,
    grow_labels,
    instance_boxes,
    instance_means,
    label_areas,
    label_overlaps,
    log_diameters,
    number_labels,
    shift_map,
)


def _same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist()))
    return len(pairs) == len({p[0] for p in pairs}) == len({p[1] for p in pairs})


def _components(mask: np.ndarray, x: np.ndarray | None = None) -> np.ndarray:
    x = np.ones((*mask.shape, 1), "float32") if x is None else x
    return np.asarray(connected_components(mask, embedding_links(x, mask, 0.9)))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0.1, 0.9), st.integers(0, 10**6))
def test_components_equal_scipy(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((2, height, width)) < share
    result = _components(mask)
    for one, truth in zip(result, mask):
        assert _same_partition(one, ndimage.label(truth, np.ones((3, 3)))[0])
    first, second = (set(one[one > 0].tolist()) for one in result)
    assert not first & second


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 16), st.integers(0, 10**6))
def test_embeddings_cut_components(side: int, seed: int) -> None:
    groups = np.random.default_rng(seed).integers(0, 3, (1, side, side))
    mask = np.ones_like(groups, bool)
    expected = np.zeros((side, side), int)
    for group in range(3):
        part, _ = ndimage.label(groups[0] == group, np.ones((3, 3)))
        expected += np.where(part > 0, part + 1000 * group, 0)
    assert _same_partition(_components(mask, np.eye(3, dtype="float32")[groups])[0], expected)


def test_a_spiral_is_one_component() -> None:
    mask = np.zeros((41, 41), bool)
    row = column = 0
    mask[0, 0] = True
    lengths = [40, 40, *(length for turn in range(40, 0, -2) for length in (turn, turn))][1:]
    for turn, length in enumerate(lengths):
        down, right = [(0, 1), (1, 0), (0, -1), (-1, 0)][turn % 4]
        for _ in range(length):
            row, column = row + down, column + right
            mask[row, column] = True
    count = len(np.unique(_components(mask[None])[mask[None]]))
    assert count == ndimage.label(mask, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (1, 0), (-1, 1), (2, -3)])
def test_shift_map(rows: int, columns: int) -> None:
    x = np.arange(1, 31).reshape(1, 5, 6)
    y = np.asarray(shift_map(x, rows, columns))[0]
    for i in range(5):
        for j in range(6):
            inside = 0 <= i + rows < 5 and 0 <= j + columns < 6
            assert y[i, j] == (x[0, i + rows, j + columns] if inside else 0)


def test_grow_labels_stays_in_the_foreground() -> None:
    labels = np.zeros((1, 1, 9), "int32")
    labels[0, 0, 4] = 3
    foreground = np.array([[[0, 1, 1, 1, 1, 1, 0, 1, 1]]], bool)
    assert np.asarray(grow_labels(labels, foreground))[0, 0].tolist() == [
        0, 3, 3, 3, 3, 3, 0, 0, 0,
    ]  # fmt: skip


def test_components_under_xla() -> None:
    mask = np.random.default_rng(0).random((2, 20, 30)) < 0.5
    compiled = tf.function(connected_components, jit_compile=True)
    links = embedding_links(np.ones((2, 20, 30, 1), "float32"), mask, 0.9)
    np.testing.assert_array_equal(compiled(mask, links), _components(mask))


MAX = 6


def _labels(seed: int, batch: int = 2, high: int = MAX + 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (batch, 7, 9)).astype("int32")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, MAX + 1))
def test_means_and_boxes_equal_regionprops(seed: int, high: int) -> None:
    labels = _labels(seed, high=high)
    values = np.random.default_rng(seed).random(labels.shape).astype("float32")
    means = np.asarray(instance_means(values, labels, MAX))
    boxes = np.asarray(instance_boxes(labels, MAX))
    for b in range(2):
        regions = {r.label: r for r in regionprops(labels[b], values[b])}
        for k in range(1, MAX + 1):
            region = regions.get(k)
            np.testing.assert_allclose(
                means[b, k - 1], region.intensity_mean if region else 0, atol=1e-6
            )
            assert boxes[b, k - 1].tolist() == (list(region.bbox) if region else [0] * 4)


def test_diameters_of_instances_that_are_whole() -> None:
    labels = np.zeros((2, 20, 30), "int32")
    labels[0, 5:9, 4:14], labels[0, 12:15, 20:23], labels[0, 0:3, 9:12] = 7, 2, 5
    labels[0, 10:12, 2:4] = -1
    labels[1, 3:5, 3:5] = 7
    found = np.asarray(log_diameters(labels))
    for b, label, area in ((0, 7, 40), (0, 2, 9), (1, 7, 4)):
        expected = np.log2(np.sqrt(4 * area / np.pi))
        np.testing.assert_allclose(found[b][labels[b] == label], expected, rtol=1e-6)
    assert (found[0][labels[0] == 5] == -1).all()  # The border may cut it.
    assert not found[labels <= 0].any()


def test_areas() -> None:
    labels = np.array([[[0, 3, 3], [5, 0, 3]]], "int32")
    assert np.asarray(label_areas(labels)).tolist() == [[[0, 3, 3], [1, 0, 3]]]


def test_numbers_are_consecutive_in_each_image() -> None:
    # Named by 1 + flat index, as components are; the name's own pixel need not be left.
    labels = np.array([[[0, 3, 3, 4]], [[0, 0, 6, 8]]], "int32")
    score = np.array([[[0, 0.5, 0.7, 0.9]], [[0, 0, 0.4, 0.4]]])
    for most, first in ((10, [0, 1, 1, 2]), (1, [0, 2, 2, 1])):  # The more certain is the second.
        numbered, count, means = number_labels(labels, score[..., None], most, 4)
        assert np.asarray(numbered).tolist() == [[first], [[0, 0, 1, 2]]]
        assert np.asarray(count).tolist() == [2, 2]
        expected = [[0.6, 0.9], [0.4, 0.4]] if most > 1 else [[0.9], [0.4]]
        np.testing.assert_allclose(means[:, :2, 0], expected, rtol=1e-6)
        assert means.shape == (2, most, 1)
        assert not np.asarray(means)[:, 2:].any()
    # Those of fewer pixels than are asked of their image are none.
    least = np.array([[2.0], [1.0]], "float32")
    numbered, count, _ = number_labels(labels, score[..., None], 10, 4, least)
    assert np.asarray(numbered).tolist() == [[[0, 1, 1, 0]], [[0, 0, 1, 2]]]
    assert np.asarray(count).tolist() == [1, 2]
    # So are those whose mean score is lower than is asked.
    numbered, count, means = number_labels(labels, score[..., None], 10, 4, least_score=0.5)
    assert np.asarray(numbered).tolist() == [[[0, 1, 1, 2]], [[0, 0, 0, 0]]]
    assert np.asarray(count).tolist() == [2, 0]
    np.testing.assert_allclose(means[:, :2, 0], [[0.6, 0.9], [0, 0]], rtol=1e-6)
    # The mean is that of the pixels that count, where not all do.
    weights = np.array([[[1, 1, 3, 0]], [[1, 1, 1, 0.5]]], "float32")
    *_, means = number_labels(labels, score[..., None], 10, 4, weights=weights)
    np.testing.assert_allclose(means[:, :2, 0], [[0.65, 0], [0.4, 0.4]], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10**6), st.booleans())
def test_the_first_numbers_are_the_most_certain(most: int, seed: int, alike: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(1, 61, dtype="int32").reshape(2, 5, 6) * (rng.random((2, 5, 6)) < 0.7)
    score = rng.integers(0, 3 if alike else 10**6, labels.shape) / 10**6
    two = np.stack([0.75 * score, 0.25 * score], -1)  # As of two classes.
    numbered, count, means = (np.asarray(x) for x in number_labels(labels, two, most, 30))
    np.testing.assert_allclose(3 * means[..., 1], means[..., 0], rtol=1e-5)
    for numbers, scores, n in zip(numbered, score, count):
        there = numbers > 0
        assert sorted(numbers[there]) == list(range(1, n + 1))
        best = np.sort(scores[there])[::-1][:most]
        np.testing.assert_allclose(np.sort(scores[there & (numbers <= most)])[::-1], best)
        for part in (there & (numbers <= most), numbers > most):
            assert (np.diff(numbers[part]) > 0).all(), "in the order of the pixels"


def test_overlaps_are_those_of_masks() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (2, 9, 7, 3)).astype("int32")
    found = np.asarray(label_overlaps(labels, 6))
    assert found.shape == (2, 18, 18)
    for image in range(2):
        masks = [labels[image, ..., p // 6] == p % 6 + 1 for p in range(18)]
        for i, a in enumerate(masks):
            for j, b in enumerate(masks):
                expected = (a & b).sum() / max((a | b).sum(), 1)
                np.testing.assert_allclose(found[image, i, j], expected, atol=1e-6)


def _one_by_one(overlaps: np.ndarray, scores: np.ndarray, valid: np.ndarray, most: float) -> set:
    kept: list[int] = []
    for p in np.argsort(-scores, kind="stable"):
        if valid[p] and all(overlaps[p, k] <= most for k in kept):
            kept.append(p)
    return set(kept)


@given(st.integers(0, 2**31), st.integers(1, 30), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
@settings(max_examples=30, deadline=None)
def test_suppression_is_greedy(seed: int, candidates: int, most: float) -> None:
    rng = np.random.default_rng(seed)
    overlaps = rng.random((2, candidates, candidates)).astype("float32")
    overlaps = np.maximum(overlaps, overlaps.swapaxes(1, 2))
    # Many are equal, so that the order decides.
    scores = rng.integers(0, 5, (2, candidates)).astype("float32")
    valid = rng.random((2, candidates)) > 0.3
    found = np.asarray(greedy_suppression(overlaps, scores, valid, most))
    for image in range(2):
        expected = _one_by_one(overlaps[image], scores[image], valid[image], most)
        assert set(np.flatnonzero(found[image])) == expected
