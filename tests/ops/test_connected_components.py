import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from keras_rpe.ops.labels import connected_components, embedding_links, grow_labels, shift_map


def _same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist()))
    return len(pairs) == len({p[0] for p in pairs}) == len({p[1] for p in pairs})


def _components(mask: np.ndarray, x: np.ndarray | None = None) -> np.ndarray:
    x = np.ones((*mask.shape, 1), "float32") if x is None else x
    return np.asarray(connected_components(mask, embedding_links(x, mask, 0.9)))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0.1, 0.9), st.integers(0, 10**6))
def test_equals_scipy(height: int, width: int, share: float, seed: int) -> None:
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


def test_empty_foreground() -> None:
    assert not _components(np.zeros((1, 5, 5), bool)).any()


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
    assert np.asarray(grow_labels(labels, foreground, 2))[0, 0].tolist() == [
        0, 0, 3, 3, 3, 3, 0, 0, 0,
    ]  # fmt: skip


def test_xla() -> None:
    mask = np.random.default_rng(0).random((2, 20, 30)) < 0.5
    compiled = tf.function(connected_components, jit_compile=True)
    links = embedding_links(np.ones((2, 20, 30, 1), "float32"), mask, 0.9)
    np.testing.assert_array_equal(compiled(mask, links), _components(mask))
