"""Panoptic quality by class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import numpy as np

from keras_rpe.arguments import check_integer
from keras_rpe.metrics.masks import (
    Detections,
    GroundTruth,
    as_detections,
    as_ground_truth,
    mask_overlaps,
    required,
)

# What the paper asks for: more than half, which makes the matching unique.
_THRESHOLD = 0.5


class PanopticQuality:
    """Panoptic quality (PQ) of segments, and its factors, by class and over classes.

    A predicted and a true segment of one class match where their IoU is above 0.5. A class has
    PQ = sum of the matched IoU / (TP + FP/2 + FN/2), which is segmentation quality (SQ, the mean of
    the matched IoU) times recognition quality (RQ); a figure over classes is the mean of theirs.

    Void pixels leave all segments before the IoU. A predicted segment without a partner is not a
    false positive where more than half of its pixels are void or in crowds of its class. A true
    crowd is never matched or missed. Classes without a true or a counted predicted segment do not
    count; where no class counts, a figure is 1.0.

    It has the methods of a Keras metric but is none: it needs segments, which a model does not put
    out in training. `InstancePanopticQuality` is the Keras metric of one class. Memory does not
    grow with the images.

    Args:
        things: the classes of countable objects, which gives `result` figures for them (`PQ_th`,
            `SQ_th`, `RQ_th`) and for all other classes (`PQ_st`, ...), the stuff; None for neither.

    Raises:
        ValueError: if `things` holds anything but classes from 1.

    Source:
        Kirillov et al., "Panoptic Segmentation", CVPR 2019, section 4; void and crowd as in COCO's
        `panopticapi`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import Detections, GroundTruth, PanopticQuality
        >>> quality = PanopticQuality(things=[1])
        >>> truth = GroundTruth(np.array([[1, 1, 1, 1, 2, 255]]), [1, 5], ignore_label=255)
        >>> quality.update_state(truth, Detections(np.array([[1, 1, 1, 2, 2, 1]]), classes=[1, 5]))
        >>> quality.class_results()
        {1: {'PQ': 0.75, 'SQ': 0.75, 'RQ': 1.0}, 5: {'PQ': 0.0, 'SQ': 0.0, 'RQ': 0.0}}
        >>> quality.result()["PQ"], quality.result()["PQ_th"]
        (0.375, 0.75)
    """

    def __init__(self, things: Collection[int] | None = None) -> None:
        if things is not None:
            things = frozenset(check_integer("things", label) for label in things)
        self.things = things
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all images."""
        # Sum of the matched IoU, then TP, FP and FN of each class.
        self._counts: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(4))

    def update_state(self, true: GroundTruth, pred: Detections | Any) -> None:
        """Add an image.

        Args:
            true: `GroundTruth` with classes, without `ignored` masks. In the panoptic format of
                COCO, where 0 is void, its `ignore_label` is 0.
            pred: `Detections` with classes, or `Instances`. A segment without pixels is none.

        Raises:
            ValueError: if classes are missing, segments overlap, masks are ignored, or the masks
                are malformed or differ in height or width.
        """
        true, pred = as_ground_truth(true), as_detections(pred)
        classes_true = required("classes", "true masks", true.classes)
        classes_pred = required("classes", "predictions", pred.classes)
        if true.ignored.any():
            raise ValueError(
                "`ignored` must be False for all segments. "
                f"Received: {np.count_nonzero(true.ignored)} that are ignored"
            )
        for name, masks in (("true", true), ("pred", pred)):
            if masks.masks.ndim == 3 and (masks.masks.sum(axis=0) > 1).any():
                raise ValueError(
                    f"The segments of `{name}` must not overlap. "
                    "Received: a pixel that lies in more than one of them"
                )
        overlaps = mask_overlaps(true, pred, without_void=True)
        crowd = true.crowd
        same = classes_pred[:, None] == classes_true
        iou = np.where(same & ~crowd, overlaps.iou(np.zeros_like(crowd)), 0.0)
        rows, columns = np.nonzero(iou > _THRESHOLD)
        for label, value in zip(classes_pred[rows].tolist(), iou[rows, columns]):
            self._counts[label][:2] += value, 1

        in_crowd = np.where(same & crowd, overlaps.shared, 0).sum(axis=1)
        sizes = overlaps.area_pred + overlaps.void_pred
        wrong = 2 * (overlaps.void_pred + in_crowd) <= sizes
        wrong[rows] = False
        for label in classes_pred[wrong & (sizes > 0)].tolist():
            self._counts[label][2] += 1

        missed = ~crowd & (overlaps.area_true > 0)
        missed[columns] = False
        for label in classes_true[missed].tolist():
            self._counts[label][3] += 1

    def class_results(self) -> dict[int, dict[str, float]]:
        """Return `PQ`, `SQ` and `RQ`, each in [0, 1], of every class that counts, by the class."""
        figures = {}
        for label, (iou, tp, fp, fn) in sorted(self._counts.items()):
            total = tp + fp / 2 + fn / 2
            figures[label] = {
                "PQ": float(iou / total),
                "SQ": float(iou / tp) if tp else 0.0,
                "RQ": float(tp / total),
            }
        return figures

    def result(self) -> dict[str, float]:
        """Return the figures of all images so far.

        Returns:
            `PQ`, `SQ` and `RQ`, means over the classes that count, each in [0, 1]; with `things`
            also `PQ_th`, `SQ_th`, `RQ_th` over these and `PQ_st`, `SQ_st`, `RQ_st` over the others.
        """
        by_class = self.class_results()
        groups = {"": list(by_class.values())}
        if self.things is not None:
            groups["_th"] = [values for label, values in by_class.items() if label in self.things]
            groups["_st"] = [
                values for label, values in by_class.items() if label not in self.things
            ]
        return {
            name + suffix: float(np.mean([v[name] for v in values])) if values else 1.0
            for suffix, values in groups.items()
            for name in ("PQ", "SQ", "RQ")
        }
