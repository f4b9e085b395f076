import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.ops.maps import merge_windows, partition_windows, sample_nearest


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 33))
def test_round_trip(height: int, width: int, size: int) -> None:
    x = np.random.default_rng(0).random((2, height, width, 3)).astype("float32")
    windows, real = partition_windows(x, size)
    assert windows.shape[1] <= size**2
    assert float(np.sum(np.asarray(real))) == 2 * height * width
    assert not np.asarray(windows)[np.asarray(real)[..., 0] == 0].any()
    np.testing.assert_array_equal(merge_windows(windows, x.shape, size), x)


def test_dynamic_sizes_under_xla() -> None:
    def there_and_back(x):
        return merge_windows(partition_windows(x, 16)[0], keras.ops.shape(x), 16)

    signature = [tf.TensorSpec((None, None, None, 2))]
    compiled = tf.function(there_and_back, input_signature=signature, jit_compile=True)
    x = np.random.default_rng(0).random((1, 37, 16, 2)).astype("float32")
    np.testing.assert_array_equal(compiled(x), x)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_sample_nearest_reads_the_centers(factor: int) -> None:
    x = np.arange(24 * 12).reshape(1, 24, 12)
    y = np.asarray(sample_nearest(x, 24 // factor, 12 // factor))
    np.testing.assert_array_equal(y, x[:, factor // 2 :: factor, factor // 2 :: factor])
