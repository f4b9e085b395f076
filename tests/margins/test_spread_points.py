import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.margins import largest_similarity, smallest_margin, spread_points
from keras_rpe.margins.known_codes import KNOWN_COSINES
from keras_rpe.margins.spread_points import found_points


def largest_similarity_by_loops(points: np.ndarray) -> float:
    pairs = [(i, j) for i in range(len(points)) for j in range(i)]
    return max((1 + float(points[i] @ points[j])) / 2 for i, j in pairs)


def check(dim: int, groups: int, margin: float, tolerance: float = 1e-9) -> None:
    """Unit vectors, all as far apart as that margin says."""
    points = spread_points(dim, groups)
    assert points.shape == (groups, dim)
    assert points.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-12)
    if groups > 1:
        assert largest_similarity_by_loops(points) == pytest.approx(margin, abs=tolerance)


@given(dim=st.integers(2, 30), groups=st.integers(1, 60))
@settings(deadline=None)
def test_simplex_and_axes(dim: int, groups: int) -> None:
    groups = min(groups, 2 * dim)
    simplex = 0.0 if groups == 1 else 0.5 - 0.5 / (groups - 1)
    check(dim, groups, simplex if groups <= dim + 1 else 0.5)


@pytest.mark.parametrize("groups", [3, 4, 5, 17, 100])
def test_regular_polygons(groups: int) -> None:
    check(2, groups, 0.5 + 0.5 * math.cos(2 * math.pi / groups))


# Angles in degrees, as published.
@pytest.mark.parametrize(
    ("groups", "angle"),
    [
        (4, 109.4712206),
        (5, 90.0),
        (6, 90.0),
        (7, 77.8695421),
        (8, 74.8584922),
        (9, 70.5287794),
        (10, 66.1468220),
        (11, 63.4349488),
        (12, 63.4349488),
        (13, 57.1367031),
        (14, 55.6705700),
        (24, 43.6907671),
    ],
)
def test_tammes_problem(groups: int, angle: float) -> None:
    margin = smallest_margin(3, groups)
    assert margin.exact
    assert margin.margin == pytest.approx(0.5 + 0.5 * math.cos(math.radians(angle)), abs=1e-8)
    check(3, groups, margin.margin)


def test_table_of_three_dimensions() -> None:
    margins = [smallest_margin(3, groups).margin for groups in range(4, 13)]
    expected = [0.333, 0.5, 0.5, 0.605, 0.631, 0.667, 0.702, 0.724, 0.724]
    np.testing.assert_allclose(margins, expected, atol=5e-4)


@pytest.mark.parametrize("code", [code for code in KNOWN_COSINES if code[0] > 3])
def test_known_arrangements(code: tuple[int, int]) -> None:
    check(*code, 0.5 + 0.5 * KNOWN_COSINES[code], tolerance=1e-12)
    points = spread_points(*code)
    assert len(np.unique(points.round(6), axis=0)) == code[1]
    # They are balanced, as are all that reach these bounds.
    np.testing.assert_allclose(points.sum(axis=0), 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("dim", "groups", "best"),
    # Largest inner products of the best that are known.
    [(3, 15, 0.5926059), (3, 20, 0.6766), (4, 9, 0.1620), (4, 11, 0.2304)],
)
def test_searches_find_the_best_known(dim: int, groups: int, best: float) -> None:
    check(dim, groups, 0.5 + 0.5 * best, tolerance=1e-4)


@pytest.mark.parametrize(("dim", "groups"), [(4, 30), (16, 64), (64, 150), (7, 50), (10, 200)])
def test_searches_are_between_the_bound_and_better_than_chance(dim: int, groups: int) -> None:
    margin = smallest_margin(dim, groups)
    assert not margin.exact
    check(dim, groups, margin.margin)
    assert margin.lower_bound < margin.margin
    random = np.random.default_rng(0)
    chance = min(largest_similarity(random.normal(size=(groups, dim))) for _ in range(20))
    # More than half the way from chance to the bound.
    assert margin.margin < (chance + margin.lower_bound) / 2


def test_64_groups_in_16_dimensions() -> None:
    assert largest_similarity(spread_points(16, 64)) < 0.58


def test_same_at_every_call_and_safe_to_change() -> None:
    first = spread_points(5, 13)
    again = spread_points(5, 13)
    np.testing.assert_array_equal(first, again)
    again[:] = 0.0
    np.testing.assert_array_equal(first, spread_points(5, 13))
    found_points.cache_clear()
    np.testing.assert_array_equal(first, spread_points(5, 13))


@pytest.mark.parametrize("enough", [-1.0, 0.2, 0.25])
def test_a_whole_search_is_no_worse_than_a_short_one(enough: float) -> None:
    short, whole = found_points(6, 20, enough), found_points(6, 20)
    assert largest_similarity(whole) <= largest_similarity(short)


@given(
    points=st.integers(2, 9).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(-5, 5), min_size=3, max_size=3).filter(
                lambda p: np.linalg.norm(p) > 1e-3
            ),
            min_size=n,
            max_size=n,
        )
    )
)
def test_largest_similarity_by_loops(points: list[list[float]]) -> None:
    unit = np.array(points) / np.linalg.norm(points, axis=1, keepdims=True)
    expected = np.clip(largest_similarity_by_loops(unit), 0.0, 1.0)
    assert largest_similarity(points) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "points", [np.zeros((0, 3)), np.ones(3), np.ones((2, 3, 1)), [[1.0, np.nan]], [[np.inf, 0.0]]]
)
def test_largest_similarity_refuses_other_arrays(points: object) -> None:
    with pytest.raises(ValueError, match="`points` must be finite numbers of shape"):
        largest_similarity(points)
    with pytest.raises(ValueError, match="`points` must not be 0"):
        largest_similarity([[1.0, 0.0], [0.0, 0.0]])


def test_refuses_what_takes_too_long_or_too_much_memory() -> None:
    with pytest.raises(ValueError, match=r"`groups` must be at most 512.*groups=513, dim=3"):
        spread_points(3, 513)
    with pytest.raises(ValueError, match="`dim` times `groups` must be at most 16777216"):
        spread_points(65_536, 100_000)
    with pytest.raises(ValueError, match="`groups` must be an integer"):
        spread_points(3, 0)
    assert spread_points(600, 1000).shape == (1000, 600)
