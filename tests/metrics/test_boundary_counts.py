import numpy as np
import pytest
from skimage.morphology import thin

from keras_rpe.metrics import match_boundaries
from keras_rpe.metrics.boundaries import boundary_counts


@pytest.mark.parametrize("levels", [3, 8, 1000])
def test_agrees_with_one_matching_at_a_time(levels):
    """Few grey levels leave the map as it is between thresholds, where work is skipped."""
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
