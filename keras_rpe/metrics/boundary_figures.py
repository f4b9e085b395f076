"""Figures of the boundary benchmark, from counts of matched pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Points between two thresholds at which precision and recall are interpolated for the best F.
_STEPS = 100


@dataclass(frozen=True, eq=False)
class BoundaryFigures:
    """What the boundary benchmark of BSDS500 reports.

    Attributes:
        ods: best F-measure at one threshold for all images (optimal data set scale), in [0, 1].
        ods_threshold: that threshold; it may lie between two of `thresholds`.
        ods_precision: precision there.
        ods_recall: recall there.
        ois: F-measure where every image has its own best threshold (optimal image scale).
        ois_precision: precision with these thresholds.
        ois_recall: recall with these thresholds.
        ap: area under precision over recall, from precisions at the recalls 0, 0.01, ..., 1, those
            outside the measured range counted as 0. A map of zeros and ones has no range: 0.
        thresholds: array (n,).
        precision: array (n,): right predicted pixels by all of them, 0 where there are none.
        recall: array (n,): matched true pixels by all of them, 0 where there are none.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import BoundaryFigures
        >>> counts = np.array([[[8, 10, 8, 16], [6, 10, 6, 8]]])
        >>> figures = BoundaryFigures.from_counts(counts, np.array([0.3, 0.6]))
        >>> round(figures.ods, 3), round(figures.ods_threshold, 3), round(figures.ois, 3)
        (0.669, 0.548, 0.667)
        >>> figures.precision, figures.recall
        (array([0.5 , 0.75]), array([0.8, 0.6]))
    """

    ods: float
    ods_threshold: float
    ods_precision: float
    ods_recall: float
    ois: float
    ois_precision: float
    ois_recall: float
    ap: float
    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @classmethod
    def from_counts(cls, counts: np.ndarray, thresholds: np.ndarray) -> BoundaryFigures:
        """Compute the figures.

        Args:
            counts: integer array (images, n, 4) of what `boundary_counts` returns.
            thresholds: array (n,), ascending.

        Returns:
            The figures.
        """
        recall, precision = _rates(counts.sum(axis=0))
        ods_threshold, ods_recall, ods_precision = _best_between(thresholds, recall, precision)
        best = _f_measure(*_rates(counts)).argmax(axis=1)
        own = counts[np.arange(len(counts)), best].sum(axis=0)
        ois_recall, ois_precision = _rates(own)
        return cls(
            ods=float(_f_measure(ods_recall, ods_precision)),
            ods_threshold=float(ods_threshold),
            ods_precision=float(ods_precision),
            ods_recall=float(ods_recall),
            ois=float(_f_measure(ois_recall, ois_precision)),
            ois_precision=float(ois_precision),
            ois_recall=float(ois_recall),
            ap=_area(recall, precision),
            thresholds=thresholds,
            precision=precision,
            recall=recall,
        )


def _rates(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of counts (..., 4); 0 where nothing is to be found, or was."""
    hit, true, right, predicted = np.moveaxis(counts, -1, 0)
    return hit / np.maximum(true, 1), right / np.maximum(predicted, 1)


def _f_measure(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    total = recall + precision
    return 2 * recall * precision / np.where(total == 0, 1, total)


def _best_between(*curves: np.ndarray) -> tuple[np.ndarray, ...]:
    """Threshold, recall and precision of the best F-measure, interpolated linearly."""
    weight = np.linspace(0, 1, _STEPS)
    dense = [
        np.append(
            (curve[:-1, None] * (1 - weight[:-1]) + curve[1:, None] * weight[:-1]).ravel(),
            curve[-1],
        )
        for curve in curves
    ]
    best = _f_measure(dense[1], dense[2]).argmax()
    return tuple(values[best] for values in dense)


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    measured, first = np.unique(recall, return_index=True)
    if measured.size < 2:
        return 0.0
    at = np.linspace(0, 1, 101)
    return float(np.interp(at, measured, precision[first], left=0, right=0).sum() * 0.01)
