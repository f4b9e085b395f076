import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops

from keras_rpe.ops.labels import instance_boxes, instance_means, label_areas, number_labels

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


def test_areas() -> None:
    labels = np.array([[[0, 3, 3], [5, 0, 3]]], "int32")
    assert np.asarray(label_areas(labels)).tolist() == [[[0, 3, 3], [1, 0, 3]]]


def test_numbers_are_consecutive_in_each_image() -> None:
    # Named by 1 + flat index, as components are; the name's own pixel need not be left.
    labels = np.array([[[0, 3, 3, 4]], [[0, 0, 6, 8]]], "int32")
    numbered, count = number_labels(labels, 10)
    assert np.asarray(numbered).tolist() == [[[0, 1, 1, 2]], [[0, 0, 1, 2]]]
    assert np.asarray(count).tolist() == [2, 2]
    numbered, count = number_labels(labels, 1)
    assert np.asarray(numbered).tolist() == [[[0, 1, 1, 0]], [[0, 0, 1, 0]]]
    assert np.asarray(count).tolist() == [1, 1]
