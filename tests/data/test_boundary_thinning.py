from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label
from skimage.morphology import thin

from keras_rpe.data.bsds import thin_lines


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_equals_the_thinning_of_scikit_image(share):
    rng = np.random.default_rng(0)
    for _ in range(20):
        marks = rng.random((3, *rng.integers(1, 40, 2))) < share
        expected = np.stack([thin(one) for one in marks])
        np.testing.assert_array_equal(thin_lines(marks), expected)


def test_drawings_do_not_touch_each_other_and_stay_whole():
    rng = np.random.default_rng(1)
    marks = rng.random((5, 30, 30)) < 0.6
    before = marks.copy()
    together = thin_lines(marks)
    np.testing.assert_array_equal(marks, before)
    for one, thinned in zip(marks, together):
        np.testing.assert_array_equal(thin_lines(one[None])[0], thinned)
        assert label(one, connectivity=2).max() == label(thinned, connectivity=2).max()


def test_nothing_and_everything():
    assert not thin_lines(np.zeros((2, 5, 5), bool)).any()
    assert thin_lines(np.ones((1, 9, 9), bool)).any()
