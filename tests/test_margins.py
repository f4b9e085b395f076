import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import pair_loss_by_loops
from scipy.optimize import minimize

from keras_rpe.margins import (
    Capacity,
    Margin,
    capacity,
    groups_upper_bound,
    loss_floor,
    margin_lower_bound,
    smallest_margin,
    spread_points,
)


def largest_similarity(points):
    return 0.5 + 0.5 * float(max(np.max(points[i] @ points[:i].T) for i in range(1, len(points))))


@pytest.mark.parametrize(
    ("dim", "cosine", "points"),
    [
        *((5, 1 / 5, 16), (6, 1 / 4, 27), (7, 1 / 3, 56), (8, 1 / 2, 240), (21, 1 / 7, 162)),
        *((22, 1 / 4, 891), (23, 1 / 3, 4600), (24, 1 / 2, 196_560)),
    ],
)
def test_bounds_are_those_of_the_arrangements_that_reach_them(dim, cosine, points):
    assert groups_upper_bound(dim, 0.5 + cosine / 2) == points
    assert margin_lower_bound(dim, points) == pytest.approx(0.5 + cosine / 2, abs=1e-9)


def test_in_three_dimensions_no_bound_is_below_that_of_fejes_toth():
    for groups in range(7, 500):
        angle = math.pi * groups / (6 * (groups - 2))
        assert margin_lower_bound(3, groups) >= 0.25 / math.sin(angle) ** 2 - 1e-12


@given(dim=st.integers(2, 80), groups=st.integers(1, 10**6))
@example(dim=3, groups=9)
@example(dim=4, groups=11)
@example(dim=4, groups=13_091)
@example(dim=2, groups=1000)
@settings(deadline=None)
def test_both_bounds_say_the_same(dim, groups):
    margin = margin_lower_bound(dim, groups)
    assert 0.0 <= margin < 1.0
    assert groups_upper_bound(dim, margin) >= groups
    if margin > 1e-6:
        assert groups_upper_bound(dim, margin - 1e-6) < groups
    assert margin_lower_bound(dim, groups + 1) >= margin - 1e-12


@given(
    dim=st.integers(2, 12),
    groups=st.integers(2, 60),
    seed=st.integers(0, 2**32 - 1),
    noise=st.floats(0.0, 0.3),
)
@settings(deadline=None)
def test_no_points_are_below_the_bound(dim, groups, seed, noise):
    points = np.random.default_rng(seed).normal(size=(groups, dim))
    if groups <= 2 * dim:  # Near axes and their opposites few are as far apart as can be.
        points = np.concatenate([np.eye(dim), -np.eye(dim)])[:groups] + noise * points
    similarity = largest_similarity(points / np.linalg.norm(points, axis=1, keepdims=True))
    assert similarity >= margin_lower_bound(dim, groups) - 1e-12
    if similarity < 1.0:
        assert groups <= groups_upper_bound(dim, max(similarity, 0.0))


@pytest.mark.parametrize(
    ("dim", "margin", "groups"),
    [
        *((3, 0.0, 2), (3, 0.1, 2), (3, 1 / 3, 4), (3, 0.5, 6), (24, 0.4999, 25), (24, 0.5, 48)),
        (65_536, 0.5, 131_072),
        (2, 0.25, 3),
        (2, 0.5 + 0.5 * math.cos(2 * math.pi / 99), 99),
    ],
)
def test_what_fits_up_to_a_half_and_in_the_plane_is_exact(dim, margin, groups):
    assert groups_upper_bound(dim, margin) == groups
    assert capacity(dim, margin) == Capacity(groups, groups)
    assert smallest_margin(dim, groups).margin <= margin + 1e-9


def test_large_numbers_end_at_a_billion():
    assert groups_upper_bound(1000, 0.99999) == groups_upper_bound(3, 1 - 1e-12) == 10**9
    assert 10**6 < groups_upper_bound(2, 1 - 1e-15) <= 10**9
    assert 0.5 < margin_lower_bound(65_536, 10**9) < margin_lower_bound(3, 10**9) < 1.0
    assert capacity(65_536, 0.999) == Capacity(10**9, 10**9)


@pytest.mark.parametrize("groups", [4, 5, 9, 11, 13])
def test_capacity_is_exact_in_three_dimensions_for_few_groups(groups):
    margin = smallest_margin(3, groups).margin
    found = capacity(3, margin)
    # Five fit no closer than six, and eleven no closer than twelve.
    assert found.groups == found.upper_bound == {5: 6, 11: 12}.get(groups, groups)
    assert capacity(3, margin - 1e-4).groups < groups


@pytest.mark.parametrize(("dim", "margin"), [(3, 0.8), (24, 0.55)])
@pytest.mark.slow
def test_as_many_fit_as_it_says(dim, margin):
    found = capacity(dim, margin)
    assert 2 * dim < found.groups <= found.upper_bound == groups_upper_bound(dim, margin)
    assert smallest_margin(dim, found.groups).margin <= margin + 1e-8
    assert smallest_margin(dim, found.upper_bound + 1).lower_bound > margin


def test_margins_of_common_embeddings():
    for dim, groups in ((16, 20), (64, 128), (np.int64(4), np.int32(8))):
        assert smallest_margin(dim, groups) == Margin(0.5, 0.5)
    found = smallest_margin(16, 64)
    assert not found.exact
    assert found.lower_bound == pytest.approx(0.5506, abs=1e-4)
    assert found.margin == pytest.approx(largest_similarity(spread_points(16, 64)), abs=1e-12)
    assert found.margin < 0.58


@given(dim=st.integers(2, 65_536), groups=st.one_of(st.integers(1, 40), st.integers(513, 10**9)))
@settings(deadline=None)
def test_a_margin_is_not_below_its_bound(dim, groups):
    margin = smallest_margin(20 if 2 * dim < groups <= 40 else dim, groups)
    assert 0.0 <= margin.lower_bound <= margin.margin <= 1.0


def test_margins_beyond_the_searches_go_on_growing():
    margins = [smallest_margin(8, groups).margin for groups in (100, 512, 513, 2000, 10**5)]
    assert np.all(np.diff(margins) > 0.0)
    # A cap of an angle θ has the share (1 - cos θ)/2 of the sphere.
    assert smallest_margin(3, 10**6).margin == pytest.approx(1 - 1 / 10**6, abs=1e-8)


# The largest angles in three dimensions, in degrees, as published.
ANGLES = {7: 77.8695421, 9: 70.5287794, 12: 63.4349488, 13: 57.1367031, 24: 43.6907671}


# Simplices, axes, polygons, then angles, and the best inner products that are known.
@pytest.mark.parametrize(
    ("dim", "groups", "cosine"),
    [
        *((7, 2, -1.0), (7, 8, -1 / 7), (7, 9, 0.0), (7, 14, 0.0)),
        (2, 17, math.cos(2 * math.pi / 17)),
        *((3, groups, math.cos(math.radians(angle))) for groups, angle in ANGLES.items()),
        *((4, 10, 1 / 6), (4, 24, 1 / 2), (3, 15, 0.5926059), (3, 20, 0.6766), (4, 11, 0.2304)),
        *((5, 16, 0.2), (6, 27, 0.25)),
    ],
)
def test_points_reach_the_best_margins_that_are_known(dim, groups, cosine):
    points, margin = spread_points(dim, groups), smallest_margin(dim, groups)
    assert points.shape == (groups, dim)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-12)
    assert largest_similarity(points) == pytest.approx(0.5 + 0.5 * cosine, abs=1e-4)
    assert margin.margin == pytest.approx(0.5 + 0.5 * cosine, abs=1e-8 if margin.exact else 1e-4)
    points[:] = 0.0  # It is a copy of what a search keeps.
    assert np.all(np.linalg.norm(spread_points(dim, groups), axis=1) > 0.99)


def least_loss(labels, dim, margin):
    """The sum of both terms, minimized by descent from several random points."""
    ids = np.array(labels)
    same = ids[:, None] == ids
    sizes = same.sum(axis=1)
    weights = 1 / (np.outer(sizes, sizes) * len(set(labels)) ** 2)

    def loss(flat):
        lengths = np.linalg.norm(flat.reshape(-1, dim), axis=1, keepdims=True)
        x = flat.reshape(-1, dim) / lengths
        s = (1 + x @ x.T) / 2
        slope = weights * np.where(same, -1.0, s > margin) @ x
        slope -= (slope * x).sum(axis=1, keepdims=True) * x
        value = (weights * np.where(same, 1 - s, np.maximum(0, s - margin))).sum()
        return value, (slope / lengths).ravel()

    starts = np.random.default_rng(0).normal(size=(20, len(labels) * dim))
    results = [minimize(loss, start, jac=True, tol=1e-12).x for start in starts]
    units = [x.reshape(-1, dim) for x in results]
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in units]
    return min(sum(pair_loss_by_loops(ids, x, margin)) for x in units)


@pytest.mark.parametrize(
    ("labels", "dim", "margin"),
    [(range(5), 4, 0.2), (range(8), 3, 0.2), ([0, 0, 1, 1, 1, 2, 3, 3], 3, 0.1)],
)
def test_the_floor_is_the_least_loss(labels, dim, margin):
    floor = loss_floor(len(set(labels)), margin)
    assert floor > 0.0
    assert loss_floor(1, 0.0) == loss_floor(2, 0.1) == loss_floor(10**9, 0.5) == 0.0
    assert least_loss(list(labels), dim, margin) == pytest.approx(floor, abs=1e-6)


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        *((groups_upper_bound, (dim, 0.5), "dim") for dim in (1, 65_537, 3.0)),
        *((function, (1, 1), "dim") for function in (smallest_margin, spread_points)),
        (capacity, (1, 0.5), "dim"),
        *((margin_lower_bound, (3, groups), "groups") for groups in (0, 10**9 + 1, 2.0)),
        (loss_floor, (0, 0.1), "groups"),
        *((groups_upper_bound, (3, m), "margin") for m in (-0.1, 1.0, math.nan)),
        (loss_floor, (3, 1.0), "margin"),
        (spread_points, (3, 513), "groups"),
        (spread_points, (65_536, 100_000), "dim"),
    ],
)
def test_refuses(function, arguments, name):
    with pytest.raises(ValueError, match=rf"^`{name}` .*must be .*Received: "):
        function(*arguments)
