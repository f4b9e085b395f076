"""Metrics of scored masks: average precision and average recall."""

from __future__ import annotations

import itertools
import numbers
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from keras_rpe.metrics.matching import check_ignore_label, check_thresholds, update_all

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


def check_masks(masks: npt.ArrayLike) -> np.ndarray:
    """Return an integer label map (H, W) or a boolean stack (n, H, W), or raise `ValueError`."""
    try:
        array = np.asarray(masks)
    except ValueError:
        array = np.empty(0)
    is_map = array.ndim == 2 and np.issubdtype(array.dtype, np.integer)
    if not is_map and not (array.ndim == 3 and array.dtype == bool):
        raise ValueError(
            "`masks` must be an integer label map (H, W) or a boolean stack (n, H, W). "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    return array


def check_table(name: str, values: npt.ArrayLike, kinds: str, what: str) -> np.ndarray:
    """Return an array (n,) whose dtype is of one of `kinds`, or raise `ValueError`."""
    array = np.asarray(values)
    if not array.size and array.ndim == 1:  # an empty list is float64 to NumPy
        array = array.astype({"b": bool, "i": int, "f": float}[kinds[0]])
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise ValueError(
            f"`{name}` must hold {what} for each mask. "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    return array


def mask_ids(masks: np.ndarray, tables: dict[str, Any], ignore_label: int | None) -> np.ndarray:
    """The ids of the masks, ascending, or `ValueError` where a table has another length.

    Args:
        masks: as `check_masks` returns them.
        tables: arrays (n,) or None by their names. With a table the ids of a map are 1..n.
        ignore_label: label of void pixels of a map, which is no id, or None.

    Returns:
        int64 array (n,).
    """
    lengths = {name: len(table) for name, table in tables.items() if table is not None}
    if masks.ndim == 3:
        ids = np.arange(1, len(masks) + 1)
    else:
        found = np.unique(masks)
        found = found[(found != 0) & (found != ignore_label)].astype(np.int64)
        if found.size and found[0] < 0:
            raise ValueError(
                "`masks` must hold 0 (background) and positive ids. "
                f"Received: a smallest value of {found[0]}"
            )
        if not lengths:
            return found
        name, length = next(iter(lengths.items()))
        if found.size and found[-1] > length:
            raise ValueError(
                f"`{name}` must hold a value for each id of `masks`, that of id k at index k - 1. "
                f"Received: {length} values and an id of {found[-1]}"
            )
        ids = np.arange(1, length + 1)
    for name, length in lengths.items():
        if length != len(ids):
            raise ValueError(
                f"`{name}` must hold one value for each of {len(ids)} masks. Received: {length}"
            )
    return ids


def ids_and_classes(
    masks: np.ndarray, tables: dict[str, Any], ignore_label: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The ids of the masks, and their classes from a table or a map, or `ValueError`.

    Args:
        masks: as `check_masks` returns them.
        tables: as `mask_ids` takes them; `classes`, integers (n,) or a class map (H, W), as given.
        ignore_label: label of void pixels of a map, which is no id, or None.

    Returns:
        int64 array (n,), and the classes (n,) or None.
    """
    classes = None if tables["classes"] is None else np.asarray(tables["classes"])
    as_map = classes is not None and classes.ndim == 2
    if classes is not None and not as_map:
        classes = check_table("classes", classes, "iu", "an integer")
    ids = mask_ids(masks, {**tables, "classes": None if as_map else classes}, ignore_label)
    if masks.ndim == 2 and ignore_label in ids:
        raise ValueError(
            f"`ignore_label` must not be one of the ids 1 to {len(ids)} of the masks. "
            f"Received: ignore_label={ignore_label}"
        )
    if classes is not None and as_map:
        classes = mask_classes(classes, masks, ids)
    if classes is not None and classes.size and classes.min() < 1:
        raise ValueError(
            "`classes` must be from 1 inside the masks, 0 being the background. "
            f"Received: a class of {classes.min()}"
        )
    return ids, classes


def mask_classes(classes: np.ndarray, masks: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Look up the class of each mask in a map (H, W), or raise `ValueError`."""
    if classes.shape != masks.shape[-2:]:
        raise ValueError(
            "`classes` must hold one class for each mask, or be a map of the shape of the image. "
            f"Received: shape {classes.shape} for masks of {masks.shape[-2:]}"
        )
    rows = mask_rows(masks, ids)
    table = np.zeros(len(ids), np.int64)
    for index in np.flatnonzero(np.diff(rows.indptr)):
        found = np.unique(classes.ravel()[rows.indices[slice(*rows.indptr[index : index + 2])]])
        if len(found) > 1:
            raise ValueError(
                "`classes` must have a single class inside each mask. "
                f"Received: classes {found.tolist()} inside mask {ids[index]}"
            )
        table[index] = found[0]
    return table


def mask_rows(masks: np.ndarray, ids: np.ndarray) -> csr_array:
    """The pixels of each mask as ones in a row of an int32 matrix (n, H * W)."""
    shape = (len(ids), masks.shape[-2] * masks.shape[-1])
    if masks.ndim == 3:
        row, pixels = np.divmod(np.flatnonzero(masks), max(shape[1], 1))
    else:
        labels = masks.ravel()
        pixels = np.flatnonzero(labels)
        labels = labels[pixels].astype(np.int64)
        row = np.searchsorted(ids, labels)
        known = np.append(ids, 0)[row] == labels  # void pixels belong to no mask
        row, pixels = row[known], pixels[known]
        order = np.argsort(row, kind="stable")
        row, pixels = row[order], pixels[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(ids)))])
    return csr_array((np.ones(len(pixels), np.int32), pixels, starts), shape=shape)


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The true masks of one image.

    Attributes:
        masks: integer label map (H, W), 0 = background, or boolean stack (n, H, W), whose masks may
            overlap. Where there is a table of classes or flags, the ids of a map are 1..n;
            otherwise they are any positive numbers.
        classes: classes of the masks, positive integers (n,), or a class map (H, W) that has one
            class inside each mask; None where classes do not matter.
        crowd: which masks are crowds, booleans (n,) in the order of the ids, or None. A crowd is a
            region of many objects, of which none is asked for: predictions inside it are ignored.
        ignored: which masks are not asked for, such as VOC's difficult objects, booleans (n,), or
            None. A prediction that matches one is ignored.
        void: boolean map (H, W) of pixels about which nothing is known, or None.
        ignore_label: label of further void pixels in a label map, or None.

        ids: int64 (n,), the ids of the masks in ascending order.
        is_crowd: boolean (n,), `crowd` or False.
        is_ignored: boolean (n,), `ignored` or False.

    Array-likes serve too. Afterwards `classes` is an array (n,), and `void` has all void pixels.

    Raises:
        ValueError: if an array has another shape or type, a class is below 1, or `ignore_label` is
            one of the ids 1..n.

    Source:
        Crowds as in COCO: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; masks
        that are not asked for as the difficult objects of PASCAL VOC: Everingham et al., IJCV 2010.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import GroundTruth
        >>> labels = np.array([[1, 1, 255, 3, 0]])
        >>> truth = GroundTruth(labels, classes=(labels > 0) * 7, ignore_label=255)
        >>> len(truth), truth.classes
        (2, array([7, 7]))
    """

    masks: np.ndarray
    classes: np.ndarray | None = None
    crowd: np.ndarray | None = None
    ignored: np.ndarray | None = None
    void: np.ndarray | None = None
    ignore_label: int | None = None
    ids: np.ndarray = field(init=False, repr=False)
    is_crowd: np.ndarray = field(init=False, repr=False)
    is_ignored: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        masks = check_masks(self.masks)
        ignore_label = check_ignore_label(self.ignore_label)
        void = self.void
        if void is not None:
            void = np.asarray(void)
            if void.shape != masks.shape[-2:] or void.dtype != bool:
                raise ValueError(
                    f"`void` must be a boolean map of the shape of the image, {masks.shape[-2:]}. "
                    f"Received: shape {void.shape} of {void.dtype}"
                )
        if ignore_label is not None and masks.ndim == 2:
            labelled = masks == ignore_label
            void = labelled if void is None else void | labelled
        flags = {
            name: None if flag is None else check_table(name, flag, "b", "a boolean")
            for name, flag in (("crowd", self.crowd), ("ignored", self.ignored))
        }
        tables = {"classes": self.classes, **flags}
        ids, classes = ids_and_classes(masks, tables, ignore_label)
        no_flags = np.zeros(len(ids), bool)
        for name, value in {
            "masks": masks,
            "classes": classes,
            **{f"is_{name}": no_flags if flag is None else flag for name, flag in flags.items()},
            "void": void,
            "ids": ids,
        }.items():
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


def as_ground_truth(true: GroundTruth | npt.ArrayLike) -> GroundTruth:
    """Return `true`, or masks alone as `GroundTruth` without classes."""
    return true if isinstance(true, GroundTruth) else GroundTruth(check_masks(true))


def required(name: str, whose: str, value: np.ndarray | None) -> np.ndarray:
    """Return an attribute that is not None, or raise `ValueError`."""
    if value is None:
        raise ValueError(f"`{name}` of the {whose} must be given. Received: None")
    return value


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
        >>> from keras_rpe.metrics.masks import precision_at_recalls
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
        >>> from keras_rpe.metrics.masks import area_under_curve
        >>> right = np.array([True, False, True])
        >>> round(area_under_curve(right, ~right, 2), 4)
        0.8333
    """
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
