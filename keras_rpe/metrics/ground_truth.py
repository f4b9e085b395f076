"""The true masks of one image, for figures of proposals, detections and panoptic segments."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from keras_rpe.metrics.mask_rows import check_masks, check_table, ids_and_classes, mask_rows
from keras_rpe.metrics.matching import check_ignore_label


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
