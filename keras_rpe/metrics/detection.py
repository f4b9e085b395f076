"""Average precision and average recall of scored masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_rpe.arguments import check_choice, check_integer, check_number
from keras_rpe.metrics.masks import (
    Detections,
    GroundTruth,
    as_detections,
    as_ground_truth,
    mask_overlaps,
    required,
)
from keras_rpe.metrics.matching import check_thresholds

# pycocotools is the oracle of the tests, but does not do the work here: it has neither void pixels
# nor the VOC protocol, so that the matching below would stay, and it keeps all masks to the end.

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""The IoU thresholds .5:.05:.95 over which COCO averages."""

# An IoU of 1 that rounds down still reaches a threshold of 1.
_ALMOST_ONE = 1 - 1e-10


def match_greedily(
    iou: np.ndarray, thresholds: Sequence[float], ignored: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give each prediction, the best one first, the best true mask that is still free.

    A prediction takes an ignored mask, which crowds are too, only where no other one is free; a
    crowd takes any number. Of equal IoU the later mask is taken. Returns boolean arrays
    (thresholds, n_pred): which predictions have a partner, and which an ignored one.
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


_RECALLS = np.linspace(0, 1, 101)


def _curve(right: np.ndarray, wrong: np.ndarray, num_true: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall, and the best precision at this recall or a larger one."""
    tp, fp = np.cumsum(right), np.cumsum(wrong)
    precision = tp / np.maximum(tp + fp, 1)
    return tp / num_true, np.maximum.accumulate(precision[::-1])[::-1]


def precision_at_recalls(right: np.ndarray, wrong: np.ndarray, num_true: int) -> float:
    """COCO's average precision: the mean of the interpolated precision at 101 recalls.

    `right` and `wrong` are boolean (n,), by descending score; what is neither is ignored.
    """
    recall, precision = _curve(right, wrong, num_true)
    return float(np.append(precision, 0.0)[np.searchsorted(recall, _RECALLS)].mean())


def area_under_curve(right: np.ndarray, wrong: np.ndarray, num_true: int) -> float:
    """VOC's average precision since 2010: the area under the interpolated precision over recall."""
    _, precision = _curve(right, wrong, num_true)
    return float(precision[right].sum() / num_true)


class AverageRecall:
    """Recall of ranked proposals by their number, averaged over IoU thresholds (AR@k).

    Of each image the k best proposals are matched to the true masks one to one, as COCO does it:
    the best proposal first, each taking the mask of largest IoU that is free, at every threshold
    anew. Recall is the share of all true masks of all images that are matched, whatever their
    class. It equals the average recall of `pycocotools` with `useCats = 0`.

    Crowds and ignored masks are not asked for. Void pixels count in the union of a proposal and a
    mask, unless `exclude_void` is set. Proposals of equal score rank in the order given, and of
    true masks of equal IoU the later one is taken, as in `pycocotools`. Without any true mask, a
    recall is 1.0 where nothing was proposed either, else 0.0 (`pycocotools` says -1).

    It has the methods of a Keras metric but is none: proposals overlap and differ in number, so no
    model puts them out in training. Memory does not grow with the images.

    Args:
        max_proposals: the numbers k of proposals of an image, ascending, each from 1.
        thresholds: IoU thresholds in (0, 1], by default .5, .55, ..., .95.
        exclude_void: whether void pixels leave all masks before the IoU, as is usual on PASCAL VOC,
            where objects have void outlines.

    Raises:
        ValueError: if an argument lies outside its range.

    Source:
        Hosang et al., "What makes for effective detection proposals?", PAMI 2016, section 5.3; as
        COCO computes it: Lin et al., "Microsoft COCO", ECCV 2014.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import AverageRecall, Detections
        >>> recall = AverageRecall(max_proposals=(1, 2))
        >>> masks = np.array([[[1, 1, 0, 0]], [[0, 0, 1, 0]]], bool)
        >>> recall.update_state(np.array([[1, 1, 2, 2]]), Detections(masks, scores=[0.9, 0.5]))
        >>> {name: round(value, 2) for name, value in recall.result().items()}
        {'AR@1': 0.5, 'AR@2': 0.55, 'AR50@1': 0.5, 'AR50@2': 1.0}
    """

    def __init__(
        self,
        max_proposals: Sequence[int] = (1, 10, 60, 100),
        thresholds: Sequence[float] | np.ndarray = THRESHOLDS,
        exclude_void: bool = False,
    ) -> None:
        self.max_proposals = _check_max_proposals(max_proposals)
        self.thresholds = check_thresholds(thresholds)
        self.exclude_void = bool(exclude_void)
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all images."""
        self._found = np.zeros((len(self.max_proposals), len(self.thresholds)), np.int64)
        self._num_true = self._num_proposed = 0

    def update_state(self, true: GroundTruth | npt.ArrayLike, pred: Detections | Any) -> None:
        """Add an image.

        Args:
            true: `GroundTruth`, or bare masks: a label map (H, W) or a boolean stack (n, H, W).
            pred: `Detections`, `Instances`, or bare masks in the order of their rank.

        Raises:
            ValueError: if the masks are malformed, or differ in height or width.
        """
        true, pred = as_ground_truth(true), as_detections(pred)
        order = pred.ranked()[: self.max_proposals[-1]]
        overlaps = mask_overlaps(true, pred, order, without_void=self.exclude_void)
        ignored = true.crowd | true.ignored | overlaps.lost_true
        matched, ignored_match = match_greedily(
            overlaps.iou(true.crowd), self.thresholds, ignored, true.crowd
        )
        hits = np.cumsum(matched & ~ignored_match, axis=1)
        if hits.shape[1]:
            last = np.minimum(self.max_proposals, hits.shape[1]) - 1
            self._found += hits[:, last].T
        self._num_true += int(np.count_nonzero(~ignored))
        self._num_proposed += len(pred)

    def recalls(self) -> np.ndarray:
        """Return the recalls so far, float64 (len(max_proposals), len(thresholds)) in [0, 1]."""
        if self._num_true == 0:
            return np.full(self._found.shape, float(self._num_proposed == 0))
        return self._found / self._num_true

    def result(self) -> dict[str, float]:
        """Return the figures of all images so far.

        Returns:
            For each k of `max_proposals` the average recall `AR@k` over all thresholds, and where
            0.5 is one of them, the recall `AR50@k` at that IoU; all in [0, 1].
        """
        recalls = self.recalls()
        figures = {f"AR@{k}": float(row.mean()) for k, row in zip(self.max_proposals, recalls)}
        if 0.5 in self.thresholds:
            at_half = recalls[:, self.thresholds.index(0.5)]
            figures |= {f"AR50@{k}": float(value) for k, value in zip(self.max_proposals, at_half)}
        return figures


def _check_max_proposals(value: Any) -> list[int]:
    try:
        numbers = [check_integer("max_proposals", k) for k in value]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or any(a >= b for a, b in pairwise(numbers)):
        raise ValueError(
            f"`max_proposals` must be ascending integers from 1. Received: max_proposals={value!r}"
        )
    return numbers


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
      masks; a mask that lies entirely there counts nowhere.

    Equal scores rank in the order in which they were given, and a prediction with two true masks of
    the same IoU takes the later one, as in `pycocotools`. Classes without a true mask do not count
    in the mean. Without any true mask at all, a figure is 1.0 where nothing was predicted either,
    else 0.0 (`pycocotools` says -1).

    It has the methods of a Keras metric but is none: it needs instances, which a model does not put
    out in training, and keeps a list of scores. Memory grows by 8 bytes and 2 a threshold with each
    prediction, not with the pixels.

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
        >>> precision.update_state(truth, pred)
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
        check_choice("protocol", protocol, ("coco", "voc"))
        coco = protocol == "coco"
        if thresholds is None:
            thresholds = THRESHOLDS if coco else (0.5, 0.7)
        self.protocol = protocol
        self.thresholds = check_thresholds(thresholds)
        if max_detections is not None:
            max_detections = check_integer("max_detections", max_detections)
        self.max_detections = max_detections or (100 if coco else None)
        self.area_range = _check_area_range(area_range)
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all images."""
        self._num_images = 0
        # Of each class, for every image that has it: the number of the image, how many true masks,
        # and of the predictions the scores (n,), the right and the wrong ones (thresholds, n).
        self._found: dict[int, list[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]] = (
            defaultdict(list)
        )

    def update_state(self, true: GroundTruth, pred: Detections | Any) -> None:
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
        ignored = true.crowd | true.ignored | overlaps.lost_true | self._other(overlaps.area_true)
        excused = overlaps.lost_pred | self._other(overlaps.area_pred)
        iou, crowd = overlaps.iou(true.crowd), true.crowd
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
                self.thresholds,
                ignored[columns],
                crowd[columns],
            )
            num_true = int(np.count_nonzero(~ignored[columns]))
            right, wrong = matched & ~ignored_match, ~matched & ~excused[rows]
            self._found[label].append((self._num_images, num_true, scores[rows], right, wrong))
        self._num_images += 1

    def _other(self, areas: np.ndarray) -> np.ndarray:
        """Which masks have an area outside of `area_range`."""
        low, high = self.area_range
        return (areas < low) | (areas > high)

    def _by_class(self, times: np.ndarray | None = None) -> dict[int, np.ndarray]:
        """The average precisions (thresholds,) of each class that has a true mask.

        `times` says how often each image counts; default: once.
        """
        measure = precision_at_recalls if self.protocol == "coco" else area_under_curve
        values = {}
        for label, found in sorted(self._found.items()):
            if times is not None:
                found = [one for one in found for _ in range(times[one[0]])]
            num_true = sum(one[1] for one in found)
            if not num_true:
                continue
            scores, right, wrong = (np.concatenate(a, axis=-1) for a in list(zip(*found))[2:])
            order = np.argsort(-scores, kind="stable")
            values[label] = np.array(
                [measure(r[order], w[order], num_true) for r, w in zip(right, wrong)]
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
        nothing_predicted = not any(
            len(scores) for found in self._found.values() for _, _, scores, *_ in found
        )
        return self._named(np.full(len(self.thresholds), float(nothing_predicted)))

    def interval(
        self, confidence: float = 0.95, draws: int = 1000, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Return how far the figures would vary with other images, by the bootstrap.

        As many images are drawn as there are, with replacement, again and again. A draw counts the
        classes that it has.

        Args:
            confidence: share of the draws inside each interval, in (0, 1).
            draws: how many, from 1.
            seed: makes them repeatable.

        Returns:
            Lower and upper end by the names of the figures of `result`.

        Raises:
            ValueError: if an argument lies outside its range, or no image has a true mask.

        Source:
            Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 1979.
        """
        check_number("confidence", confidence, "(0, 1)")
        check_integer("draws", draws)
        check_integer("seed", seed, 0)
        if not self._by_class():
            raise ValueError("`interval` needs images with true masks. Received: none")
        rng = np.random.default_rng(seed)
        even = np.full(self._num_images, 1 / self._num_images)
        drawn = [self._by_class(rng.multinomial(self._num_images, even)) for _ in range(draws)]
        means = np.array([np.mean(list(one.values()), axis=0) for one in drawn if one])
        ends = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        averages = np.quantile(means.mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
        low, high = (self._named(values) | {"AP": float(a)} for values, a in zip(ends, averages))
        return {name: (low[name], high[name]) for name in low}

    def class_results(self) -> dict[int, dict[str, float]]:
        """Return the same figures for each class that has a true mask, by the class."""
        return {label: self._named(values) for label, values in self._by_class().items()}


def _check_area_range(value: Any) -> tuple[float, float]:
    if value is None:
        return 0.0, np.inf
    try:
        low, high = value
        if check_number("area_range", low, "[0, inf)") <= high:
            return float(low), float(high)
    except (TypeError, ValueError):
        pass
    raise ValueError(
        "`area_range` must be a smallest and a largest number of pixels, or None. "
        f"Received: area_range={value!r}"
    )
