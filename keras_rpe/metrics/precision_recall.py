"""Average precision from a ranking of right and wrong predictions."""

from __future__ import annotations

import numpy as np

_RECALLS = np.linspace(0, 1, 101)


def _curve(right: np.ndarray, wrong: np.ndarray, num_true: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall, and the best precision at this recall or a larger one."""
    tp, fp = np.cumsum(right), np.cumsum(wrong)
    precision = tp / np.maximum(tp + fp, 1)
    return tp / num_true, np.maximum.accumulate(precision[::-1])[::-1]


def precision_at_recalls(right: np.ndarray, wrong: np.ndarray, num_true: int) -> float:
    """COCO's average precision: the mean of the interpolated precision at 101 recalls.

    Args:
        right: boolean (n,), right predictions by descending score.
        wrong: boolean (n,), wrong ones; what is neither is ignored.
        num_true: how many right ones there could be, from 1.

    Returns:
        The average precision in [0, 1].

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics.precision_recall import precision_at_recalls
        >>> right = np.array([True, False, True])
        >>> round(precision_at_recalls(right, ~right, 2), 4)
        0.835
    """
    recall, precision = _curve(right, wrong, num_true)
    return float(np.append(precision, 0.0)[np.searchsorted(recall, _RECALLS)].mean())


def area_under_curve(right: np.ndarray, wrong: np.ndarray, num_true: int) -> float:
    """VOC's average precision since 2010: the area under the interpolated precision over recall.

    Args:
        right: boolean (n,), right predictions by descending score.
        wrong: boolean (n,), wrong ones; what is neither is ignored.
        num_true: how many right ones there could be, from 1.

    Returns:
        The average precision in [0, 1].

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics.precision_recall import area_under_curve
        >>> right = np.array([True, False, True])
        >>> round(area_under_curve(right, ~right, 2), 4)
        0.8333
    """
    _, precision = _curve(right, wrong, num_true)
    return float(precision[right].sum() / num_true)
