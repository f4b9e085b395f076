"""The predicted masks of one image, for figures of proposals, detections and panoptic segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from keras_rpe.metrics.mask_rows import check_masks, check_table, ids_and_classes, mask_rows


@dataclass(frozen=True, eq=False)
class Detections:
    """The predicted masks of one image.

    Metrics take the `Instances` of a model as they are; this class holds what those cannot, such as
    proposals that overlap.

    Attributes:
        masks: integer label map (H, W), 0 = background, or boolean stack (n, H, W), whose masks may
            overlap. Where there is a table of scores or classes, the ids of a map are 1..n;
            otherwise they are any positive numbers.
        scores: finite scores of the masks (n,), the best one the largest, or None for masks that
            come in the order of their rank, or need none.
        classes: classes of the masks, positive integers (n,), or a class map (H, W) that has one
            class inside each mask; None where classes do not matter.
        ids: int64 (n,), the ids of the masks in ascending order.

    Array-likes serve too. Afterwards `classes` is an array (n,).

    Raises:
        ValueError: if an array has another shape or type, a score is not finite, or a class is
            below 1.

    Source:
        The detections of COCO: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import Detections
        >>> masks = np.array([[[True, True, False]], [[True, True, True]]])
        >>> len(Detections(masks, scores=[0.9, 0.4], classes=[2, 1]))
        2
    """

    masks: np.ndarray
    scores: np.ndarray | None = None
    classes: np.ndarray | None = None
    ids: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        masks = check_masks(self.masks)
        scores = self.scores
        if scores is not None:
            scores = check_table("scores", scores, "fiu", "a number").astype(np.float64)
            if not np.isfinite(scores).all():
                raise ValueError(
                    "`scores` must be finite. "
                    f"Received: {scores[~np.isfinite(scores)][0]} among {len(scores)} scores"
                )
        ids, classes = ids_and_classes(masks, {"scores": scores, "classes": self.classes})
        for name, value in (
            ("masks", masks),
            ("scores", scores),
            ("classes", classes),
            ("ids", ids),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Number of masks."""
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.masks.shape[-2:]

    def rows(self) -> csr_array:
        """The pixels of each mask as ones in a row of an int32 matrix (n, H * W)."""
        return mask_rows(self.masks, self.ids)

    def ranked(self) -> np.ndarray:
        """The indices of the masks by descending score, equal scores in the order given."""
        if self.scores is None:
            return np.arange(len(self))
        return np.argsort(-self.scores, kind="stable")


def as_detections(pred: Any) -> Detections:
    """Return `pred` as `Detections`.

    Args:
        pred: `Detections`, an object with `scores` and with `masks` or `labels`, such as
            `Instances`, or masks alone.
    """
    if isinstance(pred, Detections):
        return pred
    masks = getattr(pred, "masks", None)
    if masks is None:
        masks = getattr(pred, "labels", None)
    if masks is None:
        return Detections(pred)
    return Detections(masks, getattr(pred, "scores", None), getattr(pred, "classes", None))
