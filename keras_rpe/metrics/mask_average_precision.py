"""Mean average precision of classed, scored masks, as COCO and PASCAL VOC define it."""

from __future__ import annotations

import numbers
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_rpe.metrics.detections import Detections, as_detections
from keras_rpe.metrics.greedy_matching import THRESHOLDS, match_greedily
from keras_rpe.metrics.ground_truth import GroundTruth, as_ground_truth, required
from keras_rpe.metrics.image_pairs import update_all
from keras_rpe.metrics.mask_overlaps import mask_overlaps
from keras_rpe.metrics.matching import check_thresholds
from keras_rpe.metrics.precision_recall import area_under_curve, precision_at_recalls

_PROTOCOLS = ("coco", "voc")


class MaskAveragePrecision:
    """Mean average precision (mAP) of masks over classes and IoU thresholds.

    The predictions of each class and image are matched to the true masks one to one, the best
    score first, each taking the mask of largest IoU that is free, at every threshold anew. A match
    is right; predictions without one are false; those that match a crowd or an ignored mask count
    nowhere. Precision is then taken over recall, all images together.

    - `protocol="coco"` equals COCO's `pycocotools`: IoU .5:.05:.95, precision at the 101 recalls 0,
      .01, ..., 1, the 100 best predictions of a class and image. Void pixels are a crowd for all
      classes: a prediction without a partner, but with an IoU of the threshold by its share of void
      pixels, is ignored.
    - `protocol="voc"` is the mAP^r of simultaneous detection and segmentation: IoU .5 and .7, the
      whole area under the interpolated curve (VOC devkit since 2010, not its older mean of 11
      recalls), all predictions. An IoU equal to the threshold is a match. Void pixels leave all
      masks; a mask that lies there altogether counts nowhere.

    Equal scores rank in the order in which they were given, and a prediction with two true masks of
    the same IoU takes the later one, as in `pycocotools`. Classes without a true mask do not count
    in the mean. Without any true mask at all, a figure is 1.0 where nothing was predicted either,
    else 0.0 (`pycocotools` says -1).

    This is a plain accumulator, not a Keras metric: it needs instances, which a model in training
    does not put out, and keeps a list of scores. Memory grows by 8 bytes and 2 a threshold with
    each prediction, not with the pixels.

    Args:
        protocol: `"coco"` or `"voc"`.
        thresholds: IoU thresholds in (0, 1], or None for those of the protocol.
        max_detections: how many predictions of each class and image count, or None for the number
            of the protocol.
        area_range: smallest and largest area of a true mask in pixels, as in COCO's figures for
            small, medium and large objects. Others are ignored, and so are predictions of another
            area without a partner. None for all areas.

    Raises:
        ValueError: if an argument lies outside its range.

    Source:
        Lin et al., "Microsoft COCO", ECCV 2014; Hariharan et al., "Simultaneous Detection and
        Segmentation", ECCV 2014, section 5.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import Detections, GroundTruth, MaskAveragePrecision
        >>> precision = MaskAveragePrecision("voc")
        >>> truth = GroundTruth(np.array([[1, 1, 1, 2, 2]]), classes=[3, 8])
        >>> pred = Detections(np.array([[1, 1, 0, 2, 2]]), scores=[0.9, 0.8], classes=[3, 8])
        >>> precision.update(truth, pred)
        >>> precision.result()
        {'AP': 0.75, 'AP50': 1.0, 'AP70': 0.5}
        >>> precision.class_results()[3]
        {'AP': 0.5, 'AP50': 1.0, 'AP70': 0.0}
    """

    def __init__(
        self,
        protocol: str = "coco",
        thresholds: Sequence[float] | np.ndarray | None = None,
        max_detections: int | None = None,
        area_range: tuple[float, float] | None = None,
    ) -> None:
        if protocol not in _PROTOCOLS:
            raise ValueError(f'`protocol` must be "coco" or "voc". Received: protocol={protocol!r}')
        coco = protocol == "coco"
        if thresholds is None:
            thresholds = THRESHOLDS if coco else (0.5, 0.7)
        self.protocol = protocol
        self.thresholds = check_thresholds(thresholds)
        self.max_detections = _check_max_detections(max_detections) or (100 if coco else None)
        self.area_range = _check_area_range(area_range)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._num_true: dict[int, int] = defaultdict(int)
        self._scores: dict[int, list[np.ndarray]] = defaultdict(list)
        self._right: dict[int, list[np.ndarray]] = defaultdict(list)
        self._wrong: dict[int, list[np.ndarray]] = defaultdict(list)

    def update(self, true: GroundTruth, pred: Detections | Any) -> None:
        """Add an image.

        Args:
            true: `GroundTruth` with classes.
            pred: `Detections` with scores and classes, or `Instances`.

        Raises:
            ValueError: if classes or scores are missing, or the masks are malformed or differ in
                height or width.
        """
        true, pred = as_ground_truth(true), as_detections(pred)
        classes_true = required("classes", "true masks", true.classes)
        classes = required("classes", "predictions", pred.classes)
        scores = required("scores", "predictions", pred.scores)
        order = pred.ranked()
        classes, scores = classes[order], scores[order]
        coco = self.protocol == "coco"
        overlaps = mask_overlaps(true, pred, order, without_void=not coco)
        ignored = (
            true.is_crowd | true.is_ignored | overlaps.lost_true | self._other(overlaps.area_true)
        )
        excused = overlaps.lost_pred | self._other(overlaps.area_pred)
        iou, crowd = overlaps.iou(true.is_crowd), true.is_crowd
        with_void = coco and true.void is not None
        if with_void:
            iou = np.column_stack([iou, overlaps.void_share()])
            ignored, crowd = np.append(ignored, True), np.append(crowd, True)

        for label in np.union1d(classes_true, classes).tolist():
            columns = np.flatnonzero(classes_true == label)
            if with_void:
                columns = np.append(columns, len(classes_true))
            rows = np.flatnonzero(classes == label)[: self.max_detections]
            matched, ignored_match = match_greedily(
                iou[np.ix_(rows, columns)],
                np.array(self.thresholds),
                ignored[columns],
                crowd[columns],
            )
            self._num_true[label] += int(np.count_nonzero(~ignored[columns]))
            self._scores[label].append(scores[rows])
            self._right[label].append(matched & ~ignored_match)
            self._wrong[label].append(~matched & ~excused[rows])

    def _other(self, areas: np.ndarray) -> np.ndarray:
        """Which masks are of another size than those of interest."""
        low, high = self.area_range
        return (areas < low) | (areas > high)

    def _by_class(self) -> dict[int, np.ndarray]:
        """The average precisions (thresholds,) of each class that has a true mask."""
        measure = precision_at_recalls if self.protocol == "coco" else area_under_curve
        values = {}
        for label in sorted(label for label, number in self._num_true.items() if number):
            order = np.argsort(-np.concatenate(self._scores[label]), kind="stable")
            right = np.concatenate(self._right[label], axis=1)[:, order]
            wrong = np.concatenate(self._wrong[label], axis=1)[:, order]
            values[label] = np.array(
                [measure(r, w, self._num_true[label]) for r, w in zip(right, wrong)]
            )
        return values

    def _named(self, values: np.ndarray) -> dict[str, float]:
        at = {f"AP{100 * t:g}": float(value) for t, value in zip(self.thresholds, values)}
        return {"AP": float(values.mean()), **at}

    def result(self) -> dict[str, float]:
        """Return the figures of all images so far.

        Returns:
            `AP`, the mean over thresholds and classes, and the mean over classes at each IoU
            threshold, such as `AP50` and `AP75`; all in [0, 1].
        """
        by_class = list(self._by_class().values())
        if by_class:
            return self._named(np.mean(by_class, axis=0))
        nothing_predicted = not any(len(s) for scores in self._scores.values() for s in scores)
        return self._named(np.full(len(self.thresholds), float(nothing_predicted)))

    def class_results(self) -> dict[int, dict[str, float]]:
        """Return the same figures for each class that has a true mask, by the class."""
        return {label: self._named(values) for label, values in self._by_class().items()}


def mask_average_precision(
    truths: Iterable[GroundTruth],
    predictions: Iterable[Detections | Any],
    protocol: str = "coco",
    thresholds: Sequence[float] | np.ndarray | None = None,
    max_detections: int | None = None,
    area_range: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Mean average precision of masks over a list of images; see `MaskAveragePrecision`.

    Args:
        truths: `GroundTruth` of each image, with classes.
        predictions: as many `Detections` with scores and classes, or `Instances`.
        protocol: `"coco"` or `"voc"`.
        thresholds: IoU thresholds in (0, 1], or None for those of the protocol.
        max_detections: how many predictions of each class and image count, or None for the number
            of the protocol.
        area_range: smallest and largest area of a true mask in pixels, or None.

    Returns:
        The figures that `MaskAveragePrecision.result` names.

    Raises:
        ValueError: if the numbers of images differ, an image is malformed (the message then starts
            with its number, from 0), or an argument lies outside its range.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import Detections, GroundTruth, mask_average_precision
        >>> labels = np.array([[1, 1, 0, 2]])
        >>> pred = Detections(labels, scores=[0.9, 0.8], classes=[1, 1])
        >>> mask_average_precision([GroundTruth(labels, [1, 1])], [pred])["AP75"]
        1.0
    """
    precision = MaskAveragePrecision(protocol, thresholds, max_detections, area_range)
    update_all(precision.update, truths, predictions)
    return precision.result()


def _check_max_detections(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(
            "`max_detections` must be an integer from 1, or None. "
            f"Received: max_detections={value!r}"
        )
    return int(value)


def _check_area_range(value: Any) -> tuple[float, float]:
    if value is None:
        return 0.0, np.inf
    pair = tuple(value) if isinstance(value, (Sequence, np.ndarray)) else ()
    if (
        len(pair) != 2
        or not all(isinstance(x, numbers.Real) for x in pair)
        or not 0 <= pair[0] <= pair[1]
    ):
        raise ValueError(
            "`area_range` must be a smallest and a largest number of pixels, or None. "
            f"Received: area_range={value!r}"
        )
    return float(pair[0]), float(pair[1])
