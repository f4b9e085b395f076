import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.morphology import thin

from keras_rpe.metrics.boundaries import thin_to_lines

MASKS = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_agrees_with_scikit_image(mask):
    np.testing.assert_array_equal(thin_to_lines(mask), thin(mask))


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (30, 30)])
def test_blobs_shrink_as_in_scikit_image(shape):
    rng = np.random.default_rng(1)
    mask = np.kron(rng.random((shape[0] // 5, shape[1] // 5)) < 0.6, np.ones((5, 5))) > 0
    lines = thin_to_lines(mask)
    np.testing.assert_array_equal(lines, thin(mask))
    assert 0 < lines.sum() < mask.sum() / 2


def test_lines_of_one_pixel_and_the_argument_stay():
    diagonal = np.eye(7, dtype=bool)
    np.testing.assert_array_equal(thin_to_lines(diagonal), diagonal)
    block = np.ones((5, 5), bool)
    assert thin_to_lines(block).sum() < 25
    assert block.all()
    assert not thin_to_lines(np.zeros((3, 4), bool)).any()
