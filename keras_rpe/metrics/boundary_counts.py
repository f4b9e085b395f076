"""Counts of matched boundary pixels of one image, over thresholds."""

from __future__ import annotations

import numpy as np

from keras_rpe.metrics.boundary_matching import BoundaryMatcher
from keras_rpe.metrics.boundary_thinning import thin_to_lines


def boundary_counts(
    prediction: np.ndarray, truths: np.ndarray, thresholds: np.ndarray, max_distance: float
) -> np.ndarray:
    """Count the matched pixels of one image at all thresholds.

    At each threshold the map `prediction >= threshold` is thinned to lines and matched to every
    annotator's map in turn. A predicted pixel is right if any annotator's map has a partner for
    it.

    Args:
        prediction: array (height, width) in [0, 1].
        truths: boolean array (annotators, height, width).
        thresholds: array (n,).
        max_distance: largest distance of a pair, in diagonals of the image.

    Returns:
        int64 array (n, 4), for each threshold: the matched true pixels and all true pixels, both
        summed over the annotators; the right predicted pixels and all of them, after thinning.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics.boundary_counts import boundary_counts
        >>> line = np.zeros((6, 6), bool)
        >>> line[2] = True
        >>> boundary_counts(line * 0.6, line[None], np.array([0.5, 0.7]), 0.01)
        array([[6, 6, 6, 6],
               [0, 6, 0, 0]])
    """
    matchers = [BoundaryMatcher(truth, max_distance) for truth in truths]
    counts = np.zeros((len(thresholds), 4), np.int64)
    counts[:, 1] = np.count_nonzero(truths)
    previous = raw = None
    for index, threshold in enumerate(thresholds):
        mask = prediction >= threshold
        size = np.count_nonzero(mask)
        if size == raw:  # the maps shrink: equally many pixels are the same pixels
            counts[index] = counts[index - 1]
            continue
        raw = size
        lines = np.flatnonzero(thin_to_lines(mask))
        if previous is not None and np.array_equal(lines, previous):
            counts[index] = counts[index - 1]
            continue
        previous = lines
        right = np.zeros(prediction.size, bool)
        for matcher in matchers:
            found, hit = matcher.match(lines)
            right[found] = True
            counts[index, 0] += hit.size
        counts[index, 2:] = np.count_nonzero(right), lines.size
    return counts
