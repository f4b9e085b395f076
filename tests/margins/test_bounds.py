import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_rpe.margins import (
    fejes_toth_margin,
    fejes_toth_margin_of_many,
    groups_upper_bound,
    largest_similarity,
    levenshtein_bound,
    margin_lower_bound,
    smallest_margin,
)

DIMS = st.integers(2, 80)


@pytest.mark.parametrize(
    ("dim", "cosine", "points"),
    [
        (3, -1 / 3, 4),
        (9, 0.0, 18),
        (3, 1 / math.sqrt(5), 12),
        (5, 1 / 5, 16),
        (6, 1 / 4, 27),
        (7, 1 / 3, 56),
        (8, 1 / 2, 240),
        (21, 1 / 7, 162),
        (22, 1 / 11, 100),
        (22, 1 / 6, 275),
        (22, 1 / 4, 891),
        (23, 1 / 3, 4600),
        (24, 1 / 2, 196_560),
    ],
)
def test_levenshtein_bound_is_that_of_the_codes_that_reach_it(
    dim: int, cosine: float, points: int
) -> None:
    assert levenshtein_bound(dim, cosine) == pytest.approx(points, rel=1e-9)
    assert groups_upper_bound(dim, 0.5 + cosine / 2) == points
    assert margin_lower_bound(dim, points) == pytest.approx(0.5 + cosine / 2, abs=1e-9)


@given(dim=st.integers(3, 300), cosine=st.floats(-1.0, 0.999))
@settings(deadline=None)
def test_levenshtein_bound_grows_without_jumps(dim: int, cosine: float) -> None:
    low, high = levenshtein_bound(dim, cosine), levenshtein_bound(dim, cosine + 1e-9)
    assert low >= 2.0
    if math.isfinite(high):
        assert low <= high * (1 + 1e-9)
        assert high <= low * (1 + 1e-4)


def test_fejes_toth_is_reached_by_the_regular_polyhedra_of_triangles() -> None:
    for groups, cosine in ((3, -1 / 2), (4, -1 / 3), (6, 0.0), (12, 1 / math.sqrt(5))):
        assert fejes_toth_margin(groups) == pytest.approx(0.5 + cosine / 2, abs=1e-12)


def test_three_dimensional_bounds_of_few_and_many_groups() -> None:
    of_many = [fejes_toth_margin_of_many(groups) for groups in (4, 5, 6, 7)]
    np.testing.assert_allclose(of_many, [0.093, 0.274, 0.395, 0.482], atol=5e-4)
    for groups in range(3, 2000):
        assert fejes_toth_margin_of_many(groups) < fejes_toth_margin(groups)
        assert fejes_toth_margin(groups) <= margin_lower_bound(3, groups) + 1e-12
    assert fejes_toth_margin(10**6) - fejes_toth_margin_of_many(10**6) < 1e-11


@given(dim=DIMS, groups=st.integers(1, 10**6))
@example(dim=3, groups=9)
@example(dim=4, groups=11)
@example(dim=4, groups=13_091)
@example(dim=2, groups=1000)
@settings(deadline=None)
def test_both_bounds_say_the_same(dim: int, groups: int) -> None:
    margin = margin_lower_bound(dim, groups)
    assert 0.0 <= margin < 1.0
    assert groups_upper_bound(dim, margin) >= groups
    if margin > 1e-6:
        assert groups_upper_bound(dim, margin - 1e-6) < groups


@given(dim=DIMS, groups=st.integers(1, 3000))
@settings(deadline=None)
def test_more_groups_and_fewer_dimensions_need_no_smaller_margin(dim: int, groups: int) -> None:
    margin = margin_lower_bound(dim, groups)
    assert margin_lower_bound(dim, groups + 1) >= margin - 1e-12


@given(
    dim=st.integers(2, 12),
    groups=st.integers(2, 60),
    seed=st.integers(0, 2**32 - 1),
    noise=st.floats(0.0, 0.3),
)
@settings(deadline=None)
def test_no_points_are_below_the_bound(dim: int, groups: int, seed: int, noise: float) -> None:
    random = np.random.default_rng(seed)
    points = random.normal(size=(groups, dim))
    # Near axes and their opposites, where few are as far apart as can be.
    if groups <= 2 * dim:
        axes = np.concatenate([np.eye(dim), -np.eye(dim)])[:groups]
        points = axes + noise * points
    similarity = largest_similarity(points)
    assert similarity >= margin_lower_bound(dim, groups) - 1e-12
    if similarity < 1.0:
        assert groups <= groups_upper_bound(dim, similarity)


def test_up_to_a_half_the_bound_is_what_fits() -> None:
    for dim, margin, groups in (
        (3, 0.0, 2),
        (3, 0.1, 2),
        (3, 0.25, 3),
        (3, 1 / 3, 4),
        (3, 0.49, 4),
        (3, 0.5, 6),
        (24, 0.4, 6),
        (24, 0.4999, 25),
        (24, 0.5, 48),
        (65_536, 0.5, 131_072),
        (2, 0.25, 3),
        (2, 0.5 + 0.5 * math.cos(2 * math.pi / 99), 99),
    ):
        assert groups_upper_bound(dim, margin) == groups
        assert smallest_margin(dim, groups).margin <= margin + 1e-9


def test_large_numbers_end_at_a_billion() -> None:
    assert groups_upper_bound(1000, 0.99999) == 10**9
    assert groups_upper_bound(3, 1 - 1e-12) == 10**9
    assert 10**6 < groups_upper_bound(2, 1 - 1e-15) <= 10**9
    assert 0.5 < margin_lower_bound(65_536, 10**9) < margin_lower_bound(3, 10**9) < 1.0


@pytest.mark.parametrize("dim", [1, 0, -3, 65_537, 3.0, True, "3", None, float("nan")])
def test_refuses_other_dimensions(dim: object) -> None:
    for function in (groups_upper_bound, margin_lower_bound, smallest_margin):
        argument = 0.5 if function is groups_upper_bound else 5
        with pytest.raises(ValueError, match="`dim` must be an integer of at least 2"):
            function(dim, argument)


@pytest.mark.parametrize("groups", [0, -1, 10**9 + 1, 2.0, False, "7", None])
def test_refuses_other_numbers_of_groups(groups: object) -> None:
    for function in (margin_lower_bound, smallest_margin):
        with pytest.raises(ValueError, match="`groups` must be an integer of at least 1"):
            function(3, groups)
    with pytest.raises(ValueError, match="`groups` must be"):
        fejes_toth_margin(groups)


@pytest.mark.parametrize("margin", [-0.1, 1.0, 2, float("nan"), float("inf"), "0.5", None, True])
def test_refuses_other_margins(margin: object) -> None:
    with pytest.raises(ValueError, match=r"`margin` must be a number in \[0, 1\)"):
        groups_upper_bound(3, margin)


def test_refuses_what_bounds_are_not_for() -> None:
    with pytest.raises(ValueError, match="`groups` must be at least 3. Received: groups=2"):
        fejes_toth_margin_of_many(2)
    for dim, cosine in ((2, 0.0), (3, 1.0), (3, -1.1), (3, float("nan"))):
        with pytest.raises(ValueError, match="`dim` must be at least 3 and `cosine` in"):
            levenshtein_bound(dim, cosine)
