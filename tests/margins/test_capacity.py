import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.margins import Capacity, capacity, groups_upper_bound, smallest_margin


@given(dim=st.integers(2, 500), margin=st.floats(0.0, 0.5))
@settings(deadline=None)
def test_exact_up_to_a_half(dim: int, margin: float) -> None:
    found = capacity(dim, margin)
    assert found.exact
    assert smallest_margin(dim, found.groups).margin <= margin + 1e-9
    assert smallest_margin(dim, found.groups + 1).margin > margin


@pytest.mark.parametrize("groups", range(3, 14))
def test_exact_in_three_dimensions_for_few_groups(groups: int) -> None:
    margin = smallest_margin(3, groups).margin
    found = capacity(3, margin)
    # Five fit no closer than six, and eleven no closer than twelve.
    assert found.exact
    assert found.groups == {5: 6, 11: 12}.get(groups, groups)
    assert capacity(3, margin - 1e-4).groups < groups


@pytest.mark.parametrize(
    ("dim", "margin", "groups"),
    [(8, 0.75, 240), (7, 2 / 3, 56), (6, 0.625, 27), (5, 0.6, 16), (64, 0.5, 128), (2, 0.9, 9)],
)
def test_known_arrangements(dim: int, margin: float, groups: int) -> None:
    assert capacity(dim, margin) == Capacity(groups, groups)


@pytest.mark.parametrize(
    ("dim", "margin"), [(3, 0.8), (4, 0.6), (16, 0.58), (24, 0.55), (5, 0.7), (64, 0.52)]
)
def test_as_many_fit_as_it_says(dim: int, margin: float) -> None:
    found = capacity(dim, margin)
    assert 2 * dim <= found.groups <= found.upper_bound == groups_upper_bound(dim, margin)
    assert smallest_margin(dim, found.groups).margin <= margin + 1e-8
    if not found.exact:
        assert smallest_margin(dim, found.upper_bound + 1).lower_bound > margin


def test_64_groups_fit_16_dimensions_at_58() -> None:
    assert 64 <= capacity(16, 0.58).groups <= 107


def test_covering_counts_where_there_is_no_search() -> None:
    found = capacity(200, 0.75)
    assert 10**6 < found.groups <= found.upper_bound
    assert capacity(65_536, 0.999) == Capacity(10**9, 10**9)


def test_refuses_other_arguments() -> None:
    with pytest.raises(ValueError, match="`dim` must be an integer of at least 2"):
        capacity(1, 0.5)
    with pytest.raises(ValueError, match=r"`margin` must be a number in \[0, 1\)"):
        capacity(3, 1.0)
