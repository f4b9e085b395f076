import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import unit_points

from keras_rpe.ops.maps import (
    coordinate_channels,
    enlarge_labels,
    join_windows,
    merge_windows,
    overlapping_window_count,
    overlapping_windows,
    partition_windows,
    resample,
    rotate_by_position,
    sample_nearest,
    upsample_bilinear,
)

RNG = np.random.default_rng(0)
SIZES = [tf.TensorSpec((), "int32")] * 2


@pytest.mark.parametrize("factor", [1, 3, 4])
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 4, 1), (1, 1, 1, 2)])
def test_upsampling_equals_resizing(factor: int, shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=shape).astype("float32")
    size = (shape[1] * factor, shape[2] * factor)
    expected = keras.ops.image.resize(x, size, interpolation="bilinear", antialias=False)
    np.testing.assert_allclose(upsample_bilinear(x, factor), expected, atol=1e-5)


def test_coordinates() -> None:
    x = np.asarray(coordinate_channels(np.zeros((2, 4, 8, 3), "float32")))
    assert x.shape == (2, 4, 8, 2)
    np.testing.assert_allclose(x[1, :, 5, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(x[1, 2, :, 1], np.arange(-7, 8, 2) / 8)


def test_rotation_equals_complex_numbers() -> None:
    x = unit_points((1, 5, 7, 8))
    periods = [3.0, 10.0, 25.0]
    y = np.asarray(rotate_by_position(x, periods))
    for k in range(4):
        theta = np.pi * (k // 3) / 2
        row, column = np.mgrid[:5, :7]
        angle = 2 * np.pi / periods[k % 3] * (row * np.sin(theta) + column * np.cos(theta))
        expected = (x[0, ..., k] + 1j * x[0, ..., k + 4]) * np.exp(1j * angle)
        np.testing.assert_allclose(y[0, ..., k] + 1j * y[0, ..., k + 4], expected, atol=1e-6)


def test_like_features_apart_get_other_embeddings() -> None:
    x = np.ones((1, 30, 30, 24)) / 24**0.5
    y = np.asarray(rotate_by_position(x, [12.0, 24.0, 48.0]))[0]
    for direction in ((6, 0), (0, 10), (10, 10)):
        assert y[5, 5] @ y[5 + direction[0], 5 + direction[1]] < 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 33))
def test_windows_make_a_round_trip(height: int, width: int, size: int) -> None:
    x = np.random.default_rng(0).random((2, height, width, 3)).astype("float32")
    windows, real = partition_windows(x, size)
    assert windows.shape[1] <= size**2
    assert float(np.sum(np.asarray(real))) == 2 * height * width
    assert not np.asarray(windows)[np.asarray(real)[..., 0] == 0].any()
    np.testing.assert_array_equal(merge_windows(windows, x.shape, size), x)


def test_windows_of_dynamic_sizes_under_xla() -> None:
    def there_and_back(x):
        return merge_windows(partition_windows(x, 16)[0], keras.ops.shape(x), 16)

    signature = [tf.TensorSpec((None, None, None, 2))]
    compiled = tf.function(there_and_back, input_signature=signature, jit_compile=True)
    x = np.random.default_rng(0).random((1, 37, 16, 2)).astype("float32")
    np.testing.assert_array_equal(compiled(x), x)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 9))
def test_windows_that_overlap(height: int, width: int, size: int, overlap: int) -> None:
    x = np.arange(2 * height * width * 2, dtype="float32").reshape(2, height, width, 2)
    windows = np.asarray(overlapping_windows(x, size, overlap))
    count = -(-height // size) * -(-width // size)
    assert overlapping_window_count(x, size, overlap) == count
    one = overlapping_windows(x, size, overlap, only=count - 1)
    np.testing.assert_array_equal(one, windows[count - 1 :: count])
    np.testing.assert_array_equal(join_windows(windows, x, size, overlap), x)
    assert len(windows) == 2 * count
    # Every cell of a window is seen with its neighbors, as far as the map goes.
    plain = np.asarray(partition_windows(x, size)[0])[:count]
    for seen, own in zip(windows[:count], plain):
        cells = {int(one) // 2 for one in seen[:, 0]}
        for cell in {int(one) // 2 for one in own[:, 0]} - {0}:
            row, column = divmod(cell, width)
            rows, columns = (max(row - overlap, 0), row), (max(column - overlap, 0), column)
            assert {r * width + c for r in rows for c in columns} <= cells


def test_windows_of_a_part_are_those_of_the_map() -> None:
    whole = np.random.default_rng(0).normal(size=(1, 40, 24, 2)).astype("float32")
    cut = np.asarray(overlapping_windows(whole, 8, 3)).reshape(5, 3, 14 * 14, 2)
    # The middle windows of three rows, seen with six cells around them.
    part, grid = whole[:, 10:38, 2:22], ((8, -6, 2), (8, -6, 1))
    windows = np.asarray(overlapping_windows(part, 8, 3, grid))
    np.testing.assert_array_equal(windows.reshape(2, 1, 14 * 14, 2), cut[2:4, 1:2])
    joined = np.asarray(join_windows(windows, part, 8, 3, grid))
    np.testing.assert_array_equal(joined[:, 3:25, 3:17], part[:, 3:25, 3:17])


def test_resampling_is_the_mean_of_a_pixel() -> None:
    # Of 12 binary places, which it rounds to.
    x = (RNG.integers(0, 4097, (2, 12, 20, 3)) / 4096).astype("float32")
    one, two, half = (np.full(2, step, "float32") for step in (1, 2, 0.5))
    np.testing.assert_allclose(resample(x, one, 12, 20), x, atol=1e-6)
    blocks = x.reshape(2, 6, 2, 10, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(resample(x, two, 6, 10), blocks, atol=2e-4)
    finer = tf.image.resize(x, (24, 40))
    np.testing.assert_allclose(resample(x, half, 24, 40), finer, atol=2e-4)
    # Each image at its own step, from its own corner, and 0 beyond it.
    start = np.array([[2, 4], [0, 0]], "float32")
    y = np.asarray(resample(x, np.array([1, 4], "float32"), 5, 6, start))
    np.testing.assert_allclose(y[0], x[0, 2:7, 4:10], atol=1e-6)
    means = x[1].reshape(3, 4, 5, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(y[1, :3, :5], means, atol=2e-4)
    assert not y[1, 3:].any()
    assert not y[1, :, 5:].any()


def test_resampling_with_dynamic_sizes() -> None:
    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 2)), tf.TensorSpec((None,)), *SIZES]
    )
    def graph(x, step, height, width):
        return resample(x, step, height, width)

    x = RNG.random((1, 9, 7, 2)).astype("float32")
    for step, height, width in ((0.7, 12, 10), (2.3, 4, 3)):
        expected = resample(x, np.array([step], "float32"), height, width)
        found = graph(x, np.array([step], "float32"), height, width)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_enlarged_labels_are_the_largest_of_interpolated_masks(h, w, factor, seed) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (1, h, w)).astype("int32")
    step = np.array([1 / factor], "float32")
    found = np.asarray(enlarge_labels(labels, step, h * factor, w * factor))[0]
    masks = np.eye(4, dtype="float32")[labels[0]]
    shares = np.asarray(tf.image.resize(masks, (h * factor, w * factor)))[..., 1:]
    chosen = np.take_along_axis(shares, np.maximum(found - 1, 0)[..., None], -1)[..., 0]
    best = shares.max(axis=-1)
    np.testing.assert_array_equal(found > 0, best > 1e-6)
    np.testing.assert_allclose(chosen[found > 0], best[found > 0], atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_sample_nearest_reads_the_centers(factor: int) -> None:
    x = np.arange(24 * 12).reshape(1, 24, 12)
    y = np.asarray(sample_nearest(x, 24 // factor, 12 // factor))
    np.testing.assert_array_equal(y, x[:, factor // 2 :: factor, factor // 2 :: factor])


def test_a_part_of_a_label_map_is_enlarged_as_the_whole():
    """Where a pixel lies between two cells, rounding must not decide whose it is."""
    random = np.random.default_rng(0)
    labels = random.integers(1, 9, (1, 6, 900)).astype("int32")
    step = np.float32(128 / 161 / 2)  # Every 161st pixel lies in the middle between two cells.
    step, height, width = step[None], int(6 / step), int(900 / step)
    whole = np.asarray(enlarge_labels(labels, step, height, width))[0]
    for begin in (8, 296, 640):
        first = int(begin / step[0])
        start = np.array([[0.0, first * (64 / 161) - begin]], "float32")
        part = enlarge_labels(labels[..., begin:], step, height, width - first, start)
        # Its first pixels lack the cell before it.
        np.testing.assert_array_equal(np.asarray(part)[0, :, 3:], whole[:, first + 3 :])
