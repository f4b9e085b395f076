"""The greedy one-to-one matching of ranked predictions that COCO's evaluation makes."""

from __future__ import annotations

import numpy as np

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""The IoU thresholds .5:.05:.95 over which COCO averages."""

# An IoU of 1 that rounds down still reaches a threshold of 1.
_ALMOST_ONE = 1 - 1e-10


def match_greedily(
    iou: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give each prediction, the best one first, the best true mask that is still free.

    A prediction takes an ignored mask only where no other one of at least the threshold is free. A
    crowd takes any number of predictions. Of equal IoU the later mask is taken.

    Args:
        iou: float (n_pred, n_true), the predictions by descending score.
        thresholds: float (n,), the smallest IoU of a pair.
        ignored: boolean (n_true,), the masks that are not asked for; crowds are among them.
        crowd: boolean (n_true,).

    Returns:
        Boolean arrays (n, n_pred): which predictions have a partner, and which of these have an
        ignored one.
    """
    limits = np.minimum(thresholds, _ALMOST_ONE)
    shape = (len(limits), len(iou))
    matched, ignored_match = np.zeros(shape, bool), np.zeros(shape, bool)
    reachable = np.flatnonzero((iou >= limits.min()).any(axis=1))
    free = np.ones((len(limits), iou.shape[1]), bool)
    for index in reachable:
        valid = free & (iou[index] >= limits[:, None])
        regular = (valid & ~ignored).any(axis=1)
        candidates = valid & (ignored != regular[:, None])
        rows = np.flatnonzero(candidates.any(axis=1))
        values = np.where(candidates[rows], iou[index], -1.0)
        chosen = values.shape[1] - 1 - values[:, ::-1].argmax(axis=1)
        matched[rows, index] = True
        ignored_match[rows, index] = ignored[chosen]
        free[rows, chosen] = crowd[chosen]
    return matched, ignored_match
