import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.margins import Margin, smallest_margin


def test_dimensions_of_common_embeddings() -> None:
    for dim, groups in ((16, 20), (16, 32), (64, 128)):
        assert smallest_margin(dim, groups) == Margin(0.5, 0.5, exact=True)
    assert smallest_margin(16, 64).margin <= 0.585
    assert smallest_margin(16, 64).lower_bound == pytest.approx(0.5506, abs=1e-4)


@given(dim=st.integers(2, 65_536), groups=st.one_of(st.integers(1, 40), st.integers(513, 10**9)))
@settings(deadline=None)
def test_is_not_below_its_bound(dim: int, groups: int) -> None:
    if 2 * dim < groups <= 40:
        dim = 20
    margin = smallest_margin(dim, groups)
    assert 0.0 <= margin.lower_bound <= margin.margin <= 1.0
    assert margin.exact == (margin.lower_bound == margin.margin)


def test_beyond_the_searches_margins_go_on_growing() -> None:
    margins = [smallest_margin(8, groups).margin for groups in (100, 200, 512, 513, 2000, 10**5)]
    assert np.all(np.diff(margins) > 0.0)
    # A cap of an angle θ has the share (1 - cos θ)/2 of the sphere.
    assert smallest_margin(3, 10**6).margin == pytest.approx(1 - 1 / 10**6, abs=1e-8)


def test_numpy_integers_are_numbers() -> None:
    assert smallest_margin(np.int64(4), np.int32(8)) == Margin(0.5, 0.5, exact=True)
