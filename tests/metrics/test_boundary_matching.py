import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from skimage.morphology import thin

from keras_rpe.metrics import match_boundaries
from keras_rpe.metrics.boundary_matching import BoundaryMatcher, boundary_counts, thin_lines


def distances(first, second, width):
    """Distances between pixels given by their indices in maps of one width."""
    a, b = (np.stack(np.divmod(pixels, width), -1).astype(float) for pixels in (first, second))
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def least_cost(predicted, truth, limit):
    """Cost of the best pairing, from one dense assignment of all pixels and their stand-ins."""
    a, b = np.flatnonzero(predicted), np.flatnonzero(truth)
    between = distances(a, b, truth.shape[1])
    lonely = 100 * limit
    square = np.full((a.size + b.size,) * 2, lonely)
    square[: a.size, : b.size] = np.where(between <= limit, between, 1e9)
    square[a.size :, b.size :] = 0
    return square[linear_sum_assignment(square)].sum()


def cost_and_pairs(predicted, truth, share):
    limit = share * np.hypot(*truth.shape)
    matcher = BoundaryMatcher(truth, share)
    pixels = np.flatnonzero(predicted)
    first, second = matcher.match(pixels)
    assert len(set(first)) == len(first)
    assert len(set(second)) == len(second)
    assert set(first) <= set(pixels)
    assert set(second) <= set(np.flatnonzero(truth))
    lengths = distances(first, second, truth.shape[1]).diagonal()
    assert (lengths <= limit).all()
    lonely = predicted.sum() + truth.sum() - 2 * len(first)
    return lengths.sum() + 100 * limit * lonely, len(first)


PAIRS = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@settings(max_examples=80, deadline=None)
@given(PAIRS, st.sampled_from([0.0, 0.12, 0.2, 0.35, 0.9]))
def test_costs_the_least(maps, share):
    predicted, truth = maps
    limit = share * np.hypot(*truth.shape)
    if limit == 0:
        expected = (predicted & truth).sum()
        assert cost_and_pairs(predicted, truth, share)[1] == expected
    else:
        cost, _ = cost_and_pairs(predicted, truth, share)
        assert cost == pytest.approx(least_cost(predicted, truth, limit))


@pytest.mark.parametrize(("density", "swapped"), [(0.02, False), (0.3, False), (0.3, True)])
def test_costs_the_least_on_maps_of_many_and_large_components(density, swapped):
    rng = np.random.default_rng(3)
    predicted, truth = rng.random((2, 50, 60)) < np.array([density, 0.15])[:, None, None]
    if swapped:
        predicted, truth = truth, predicted
    limit = 0.05 * np.hypot(50, 60)
    cost, pairs = cost_and_pairs(predicted, truth, 0.05)
    assert cost == pytest.approx(least_cost(predicted, truth, limit))
    assert pairs > 0.9 * min(predicted.sum(), truth.sum())


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_counts_survive_swaps_flips_and_transposition(maps):
    predicted, truth = maps
    expected = cost_and_pairs(predicted, truth, 0.2)
    for a, b in (
        (truth, predicted),
        (predicted[::-1], truth[::-1]),
        (predicted[:, ::-1], truth[:, ::-1]),
        (predicted.T, truth.T),
    ):
        cost, pairs = cost_and_pairs(a, b, 0.2)
        assert pairs == expected[1]
        assert cost == pytest.approx(expected[0])


def test_a_matcher_used_again_answers_as_a_new_one():
    rng = np.random.default_rng(5)
    truth = rng.random((40, 40)) < 0.05
    strength = rng.random((40, 40)) * (rng.random((40, 40)) < 0.1)
    matcher = BoundaryMatcher(truth, 0.04)
    for threshold in (0.1, 0.2, 0.3, 0.6, 0.2):
        pixels = np.flatnonzero(strength >= threshold)
        again, fresh = matcher.match(pixels), BoundaryMatcher(truth, 0.04).match(pixels)
        for a, b in zip(again, fresh):
            assert sorted(a) == sorted(b)


def test_the_largest_distance_is_allowed_still():
    predicted, truth = np.zeros((2, 30, 40), bool)
    predicted[10, 10], truth[13, 14] = True, True
    assert match_boundaries(predicted, truth, max_distance=0.1)[0].sum() == 1
    assert match_boundaries(predicted, truth, max_distance=0.0999)[0].sum() == 0


@pytest.mark.parametrize("levels", [3, 8, 1000])
def test_agrees_with_one_matching_at_a_time(levels):
    """Few gray levels leave the map as it is between thresholds, where work is skipped."""
    rng = np.random.default_rng(levels)
    truths = rng.random((3, 30, 24)) < 0.04
    prediction = np.round(rng.random((30, 24)) ** 3 * levels) / levels
    thresholds = np.linspace(0.02, 0.98, 25)
    counts = boundary_counts(prediction, truths, thresholds, 0.05)
    assert counts.shape == (25, 4)
    for threshold, (hit, true, right, predicted) in zip(thresholds, counts):
        lines = thin(prediction >= threshold)
        pairs = [match_boundaries(lines, truth, 0.05) for truth in truths]
        assert hit == sum(of_truth.sum() for _, of_truth in pairs)
        assert right == np.any([found for found, _ in pairs], axis=0).sum()
        assert (true, predicted) == (truths.sum(), lines.sum())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.eye(4, dtype=int)}, "`predicted`.*int64"),
        ({"truth": np.ones(4, bool)}, r"`truth`.*shape \(4,\)"),
        ({"truth": np.ones((0, 4), bool)}, "`truth`.*not empty"),
        ({"truth": np.ones((3, 4), bool)}, r"`truth`.*\(4, 4\).*\(3, 4\)"),
        ({"max_distance": 1}, "`max_distance`.*1"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    line = np.eye(4, dtype=bool)
    with pytest.raises(ValueError, match=message):
        match_boundaries(**{"predicted": line, "truth": line, **change})


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_equals_the_thinning_of_scikit_image(share):
    rng = np.random.default_rng(0)
    for _ in range(20):
        marks = rng.random((3, *rng.integers(1, 40, 2))) < share
        expected = np.stack([thin(one) for one in marks])
        np.testing.assert_array_equal(thin_lines(marks), expected)
