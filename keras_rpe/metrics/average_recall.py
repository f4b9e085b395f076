"""Average recall of class-agnostic proposals."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_rpe.metrics.detections import Detections, as_detections
from keras_rpe.metrics.greedy_matching import THRESHOLDS, match_greedily
from keras_rpe.metrics.ground_truth import GroundTruth, as_ground_truth
from keras_rpe.metrics.image_pairs import update_all
from keras_rpe.metrics.mask_overlaps import mask_overlaps
from keras_rpe.metrics.matching import check_thresholds


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

    This is a plain accumulator, not a Keras metric: proposals overlap and differ in number, so no
    output of a model in training is of that form. Memory does not grow with the images.

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
        >>> recall.update(np.array([[1, 1, 2, 2]]), Detections(masks, scores=[0.9, 0.5]))
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
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._found = np.zeros((len(self.max_proposals), len(self.thresholds)), np.int64)
        self._num_true = self._num_proposed = 0

    def update(self, true: GroundTruth | npt.ArrayLike, pred: Detections | Any) -> None:
        """Add an image.

        Args:
            true: `GroundTruth`, or masks alone: a label map (H, W) or a boolean stack (n, H, W).
            pred: `Detections`, `Instances`, or masks alone in the order of their rank.

        Raises:
            ValueError: if the masks are malformed, or differ in height or width.
        """
        true, pred = as_ground_truth(true), as_detections(pred)
        order = pred.ranked()[: self.max_proposals[-1]]
        overlaps = mask_overlaps(true, pred, order, without_void=self.exclude_void)
        ignored = true.is_crowd | true.is_ignored | overlaps.lost_true
        matched, ignored_match = match_greedily(
            overlaps.iou(true.is_crowd), np.array(self.thresholds), ignored, true.is_crowd
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


def average_recall(
    truths: Iterable[GroundTruth | npt.ArrayLike],
    predictions: Iterable[Detections | Any],
    max_proposals: Sequence[int] = (1, 10, 60, 100),
    thresholds: Sequence[float] | np.ndarray = THRESHOLDS,
    exclude_void: bool = False,
) -> dict[str, float]:
    """Average recall of proposals over a list of images; see `AverageRecall`.

    Args:
        truths: true masks of each image, as `AverageRecall.update` takes them.
        predictions: as many proposals, likewise.
        max_proposals: the numbers k of proposals of an image, ascending, each from 1.
        thresholds: IoU thresholds in (0, 1].
        exclude_void: whether void pixels leave all masks before the IoU.

    Returns:
        The figures that `AverageRecall.result` names.

    Raises:
        ValueError: if the numbers of images differ, an image is malformed (the message then starts
            with its number, from 0), or an argument lies outside its range.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import average_recall
        >>> labels = np.array([[1, 1, 0, 2]])
        >>> average_recall([labels], [labels], max_proposals=(1, 10))
        {'AR@1': 0.5, 'AR@10': 1.0, 'AR50@1': 0.5, 'AR50@10': 1.0}
    """
    recall = AverageRecall(max_proposals, thresholds, exclude_void)
    update_all(recall.update, truths, predictions)
    return recall.result()


def _check_max_proposals(value: Any) -> list[int]:
    numbers_given: list[Any] = list(value) if isinstance(value, (Sequence, np.ndarray)) else []
    valid = numbers_given and all(
        isinstance(k, (int, np.integer)) and not isinstance(k, bool) and k >= 1
        for k in numbers_given
    )
    if not valid or any(a >= b for a, b in itertools.pairwise(numbers_given)):
        raise ValueError(
            f"`max_proposals` must be ascending integers from 1. Received: max_proposals={value!r}"
        )
    return [int(k) for k in numbers_given]
