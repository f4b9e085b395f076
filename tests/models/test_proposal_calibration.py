import numpy as np
import pytest
from scipy.special import expit

from keras_rpe.models.object_proposer import best_overlaps, fit_regression

RNG = np.random.default_rng(0)


def test_best_overlaps_are_those_of_masks() -> None:
    truth = np.kron(RNG.integers(0, 4, (4, 5)), np.ones((3, 3), int))
    truth[truth == 3] = 700  # ids may be any
    truth[:2] = 255
    maps = np.kron(RNG.integers(0, 5, (6, 5, 2)), np.ones((2, 3, 1), int))
    found = best_overlaps(maps, truth, 6, ignore_label=255).reshape(2, 6)
    known = truth != 255
    for s in range(2):
        for k in range(6):
            mask = maps[..., s] == k + 1
            if 2 * (mask & known).sum() <= mask.sum():
                assert np.isnan(found[s, k])
                continue
            best = 0.0
            for number in (1, 2, 700):
                true = truth == number
                best = max(best, (mask & true).sum() / ((mask & known) | true).sum())
            assert found[s, k] == pytest.approx(best)


def test_all_background_and_no_background() -> None:
    maps = np.ones((4, 4, 1), int)
    assert best_overlaps(maps, np.zeros((4, 4), int), 2).tolist()[0] == 0.0
    assert best_overlaps(maps, np.full((4, 4), 9), 2).tolist()[0] == 1.0
    assert np.isnan(best_overlaps(maps, np.full((4, 4), 9), 2, ignore_label=9)).all()


def test_fit_finds_the_regression_that_made_the_targets() -> None:
    """Whether half of the thresholds are reached depends on two of four features."""
    x = RNG.normal(size=(4000, 4)) * [1, 10, 0.1, 1] + [0, 50, 0, 3]
    x[:, 3] = 3.0  # one that is always the same
    share = expit(1.5 * x[:, 0] - 0.2 * (x[:, 1] - 50) - 0.5)
    reached = RNG.binomial(10, share)
    # An IoU that reaches so many of the ten thresholds.
    overlaps = np.where(reached > 0, 0.45 + 0.05 * reached, 0.2)
    weights, bias = fit_regression(x, overlaps)
    np.testing.assert_allclose(weights[:2], [1.5, -0.2], rtol=0.1)
    assert weights[3] == 0.0
    assert abs(weights[2] * 0.1) < 0.1
    predicted = expit(x @ weights + bias)
    np.testing.assert_allclose(predicted.mean(), share.mean(), atol=0.02)
    assert np.abs(predicted - share).mean() < 0.02


def test_fit_of_little_is_finite() -> None:
    for overlaps in (np.zeros(3), np.ones(3)):
        weights, bias = fit_regression(np.ones((3, 2)), overlaps)
        assert np.isfinite([*weights, bias]).all()
        assert (bias > 0) == (overlaps[0] > 0)
