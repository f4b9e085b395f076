"""True and predicted masks of one image, and the pixels that they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from keras_rpe.metrics.matching import check_ignore_label


def _check_masks(masks: npt.ArrayLike) -> np.ndarray:
    """Return an integer label map (H, W) or a boolean stack (n, H, W), or raise `ValueError`."""
    array = np.asarray(masks)
    is_map = array.ndim == 2 and np.issubdtype(array.dtype, np.integer)
    if not is_map and not (array.ndim == 3 and array.dtype == bool):
        raise ValueError(
            "`masks` must be an integer label map (H, W) or a boolean stack (n, H, W). "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    return array


def _check_table(name: str, values: npt.ArrayLike, kinds: str, what: str) -> np.ndarray:
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


def _ids_and_classes(
    masks: np.ndarray, tables: dict[str, Any], ignore_label: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The ids of checked masks, ascending, and their classes; each table has an entry a mask."""
    classes = None if tables["classes"] is None else np.asarray(tables["classes"])
    class_map = classes is not None and classes.ndim == 2
    if classes is not None and not class_map:
        classes = _check_table("classes", classes, "iu", "an integer")
    tables = {**tables, "classes": None if class_map else classes}
    lengths = {name: len(table) for name, table in tables.items() if table is not None}
    if masks.ndim == 3:
        count = len(masks)
    else:
        ids = np.unique(masks)
        ids = ids[(ids != 0) & (ids != ignore_label)].astype(np.int64)
        if ids.size and ids[0] < 0:
            raise ValueError(
                "`masks` must hold 0 (background) and positive ids. "
                f"Received: a smallest value of {ids[0]}"
            )
        count = max(ids.max(initial=0), *lengths.values()) if lengths else len(ids)
    for name, length in lengths.items():
        if length != count:
            raise ValueError(
                f"`{name}` must hold one value for each mask, that of id k at index k - 1, so "
                f"{count} values here. Received: {length}"
            )
    if masks.ndim == 3 or lengths:
        ids = np.arange(1, count + 1)
    if masks.ndim == 2 and ignore_label in ids:
        raise ValueError(
            f"`ignore_label` must not be one of the ids 1 to {count} of the masks. "
            f"Received: ignore_label={ignore_label}"
        )
    if classes is not None and class_map:
        classes = _look_up_classes(classes, masks, ids)
    if classes is not None and classes.size and classes.min() < 1:
        raise ValueError(
            "`classes` must be from 1 inside the masks, 0 being the background. "
            f"Received: a class of {classes.min()}"
        )
    return ids, classes


def _look_up_classes(classes: np.ndarray, masks: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if classes.shape != masks.shape[-2:]:
        raise ValueError(
            "`classes` must hold one class for each mask, or be a map of the shape of the image. "
            f"Received: shape {classes.shape} for masks of {masks.shape[-2:]}"
        )
    rows = _mask_rows(masks, ids)
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


def _mask_rows(masks: np.ndarray, ids: np.ndarray) -> csr_array:
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


class _Masks:
    """What true and predicted masks share."""

    masks: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        """Number of masks."""
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.masks.shape[-2:]

    def rows(self) -> csr_array:
        """The pixels of each mask, see `_mask_rows`."""
        return _mask_rows(self.masks, self.ids)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, eq=False)
class GroundTruth(_Masks):
    """The true masks of one image.

    Attributes:
        masks: integer label map (H, W), 0 = background, or boolean stack (n, H, W), whose masks may
            overlap. Where there is a table of classes or flags, the ids of a map are 1..n;
            otherwise they are any positive numbers.
        classes: classes of the masks, positive integers (n,), or a class map (H, W) that has one
            class inside each mask; None where classes do not matter.
        crowd: which masks are crowds, booleans (n,) in the order of the ids, or None. A crowd is a
            region of many objects that need not be found; predictions inside it are ignored.
        ignored: which masks need not be found, such as VOC's difficult objects, booleans (n,), or
            None. A prediction that matches one is ignored.
        void: boolean map (H, W) of pixels about which nothing is known, or None.
        ignore_label: label of further void pixels in a label map, or None.

        ids: int64 (n,), the ids of the masks in ascending order.

    Array-likes are accepted. Afterwards `classes` is an array (n,), `crowd` and `ignored` are
    arrays (n,) even where they were None, and `void` has all void pixels.

    Raises:
        ValueError: if an array has another shape or type, a class is below 1, or `ignore_label` is
            one of the ids 1..n.

    Source:
        Crowds as in COCO: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; masks
        that need not be found as the difficult objects of PASCAL VOC: Everingham et al., IJCV 2010.

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
    crowd: Any = None
    ignored: Any = None
    void: np.ndarray | None = None
    ignore_label: int | None = None
    ids: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        masks = _check_masks(self.masks)
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
            name: None if flag is None else _check_table(name, flag, "b", "a boolean")
            for name, flag in (("crowd", self.crowd), ("ignored", self.ignored))
        }
        ids, classes = _ids_and_classes(masks, {"classes": self.classes, **flags}, ignore_label)
        none = np.zeros(len(ids), bool)
        flags = {name: none if flag is None else flag for name, flag in flags.items()}
        self._set(masks=masks, ids=ids, classes=classes, void=void, **flags)


def as_ground_truth(true: GroundTruth | npt.ArrayLike) -> GroundTruth:
    """Return `true`, or bare masks as `GroundTruth` without classes."""
    return true if isinstance(true, GroundTruth) else GroundTruth(np.asarray(true))


def required(name: str, whose: str, value: np.ndarray | None) -> np.ndarray:
    """Return an attribute that is not None, or raise `ValueError`."""
    if value is None:
        raise ValueError(f"`{name}` of the {whose} must be given. Received: None")
    return value


@dataclass(frozen=True, eq=False)
class Detections(_Masks):
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

    Array-likes are accepted. Afterwards `classes` is an array (n,).

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
        masks = _check_masks(self.masks)
        scores = self.scores
        if scores is not None:
            scores = _check_table("scores", scores, "fiu", "a number").astype(np.float64)
            if not np.isfinite(scores).all():
                raise ValueError(
                    "`scores` must be finite. "
                    f"Received: {scores[~np.isfinite(scores)][0]} among {len(scores)} scores"
                )
        ids, classes = _ids_and_classes(masks, {"scores": scores, "classes": self.classes})
        self._set(masks=masks, ids=ids, classes=classes, scores=scores)

    def ranked(self) -> np.ndarray:
        """The indices of the masks by descending score, equal scores in the order given."""
        if self.scores is None:
            return np.arange(len(self))
        return np.argsort(-self.scores, kind="stable")


def as_detections(pred: Any) -> Detections:
    """Return `Detections`, an object with `masks` or `labels`, or bare masks as `Detections`."""
    if isinstance(pred, Detections):
        return pred
    for name in ("masks", "labels"):
        masks = getattr(pred, name, None)
        if masks is not None:
            return Detections(masks, getattr(pred, "scores", None), getattr(pred, "classes", None))
    return Detections(pred)


@dataclass(frozen=True, eq=False)
class MaskOverlaps:
    """Numbers of pixels of predicted and true masks, and (n_pred, n_true) of pairs of them."""

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
        """IoU (n_pred, n_true) as COCO has it, that with a crowd by the predicted area only."""
        area_pred = self.area_pred[:, None]
        union = np.where(crowd, area_pred, area_pred + self.area_true - self.shared)
        return self.shared / np.maximum(union, 1)

    def void_share(self) -> np.ndarray:
        """The share of each prediction that is void; 0 for empty masks."""
        size = self.area_pred + self.without_void * self.void_pred
        return self.void_pred / np.maximum(size, 1)


def mask_overlaps(
    true: GroundTruth, pred: Detections, order: np.ndarray | None = None, without_void: bool = False
) -> MaskOverlaps:
    """Count the shared pixels of all true masks and of the predictions `order`, or all of them."""
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
