"""Overlaps of the true and predicted masks of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_rpe.metrics.detections import Detections
from keras_rpe.metrics.ground_truth import GroundTruth


@dataclass(frozen=True, eq=False)
class MaskOverlaps:
    """Shared pixels of true and predicted masks.

    Attributes:
        shared: int64 (n_pred, n_true), pixels of both masks.
        area_pred: int64 (n_pred,), pixels of each prediction.
        area_true: int64 (n_true,), pixels of each true mask.
        void_pred: int64 (n_pred,), pixels of each prediction that are void.
        void_true: int64 (n_true,), pixels of each true mask that are void.
        without_void: whether `shared` and the areas leave out void pixels.
    """

    shared: np.ndarray
    area_pred: np.ndarray
    area_true: np.ndarray
    void_pred: np.ndarray
    void_true: np.ndarray
    without_void: bool

    @property
    def lost_pred(self) -> np.ndarray:
        """Which predictions have lost all their pixels with the void, boolean (n_pred,)."""
        return self.without_void & (self.area_pred == 0) & (self.void_pred > 0)

    @property
    def lost_true(self) -> np.ndarray:
        """Which true masks have lost all their pixels with the void, boolean (n_true,)."""
        return self.without_void & (self.area_true == 0) & (self.void_true > 0)

    def iou(self, crowd: np.ndarray) -> np.ndarray:
        """Intersection over union as COCO has it, that with a crowd by the predicted area alone.

        Args:
            crowd: boolean (n_true,).

        Returns:
            float64 (n_pred, n_true), 0 for empty masks.
        """
        area_pred = self.area_pred[:, None]
        union = np.where(crowd, area_pred, area_pred + self.area_true - self.shared)
        return self.shared / np.maximum(union, 1)

    def void_share(self) -> np.ndarray:
        """The share of each prediction that is void, float64 (n_pred,), 0 for empty masks."""
        size = self.area_pred + self.without_void * self.void_pred
        return self.void_pred / np.maximum(size, 1)


def mask_overlaps(
    true: GroundTruth, pred: Detections, order: np.ndarray | None = None, without_void: bool = False
) -> MaskOverlaps:
    """Count the shared pixels of all pairs of masks.

    Args:
        true: true masks.
        pred: predicted masks of the same image.
        order: which predictions to take, in this order, or None for all of them.
        without_void: whether void pixels leave all masks.

    Returns:
        The overlaps.

    Raises:
        ValueError: if the masks differ in height or width.
    """
    if true.shape != pred.shape:
        raise ValueError(
            "True and predicted masks must have the same height and width. "
            f"Received: {true.shape} and {pred.shape}"
        )
    rows_true, rows_pred = true.rows(), pred.rows()
    if order is not None:
        rows_pred = rows_pred[order]
    void_pred, void_true = (np.zeros(rows.shape[0], np.int64) for rows in (rows_pred, rows_true))
    if true.void is not None:
        void = true.void.ravel()
        void_pred += rows_pred @ void.astype(np.int32)
        void_true += rows_true @ void.astype(np.int32)
        if without_void:
            known = np.flatnonzero(~void)
            rows_true, rows_pred = rows_true[:, known], rows_pred[:, known]
    return MaskOverlaps(
        shared=(rows_pred @ rows_true.T).toarray().astype(np.int64),
        area_pred=np.diff(rows_pred.indptr).astype(np.int64),
        area_true=np.diff(rows_true.indptr).astype(np.int64),
        void_pred=void_pred,
        void_true=void_true,
        without_void=without_void,
    )
