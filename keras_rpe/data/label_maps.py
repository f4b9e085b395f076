"""Instances and classes of an image as two maps that agree with each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_rpe.data.image_file_error import ImageFileError

VOID = -1
"""The number of void pixels in maps of instances and of classes, as in `ignore_label=VOID`.

Void pixels are neither an object nor background, and no loss and no metric counts them. Files have
other numbers for them, such as 255, which in maps of instances may be an object.
"""

_COUNTABLE = 2**22


class LabelMaps(NamedTuple):
    """An image with the instance and the class of each pixel.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        instances: int32 (H, W), 0 for the background, ids from 1, `VOID`.
        classes: int32 (H, W), 0 for the background, classes from 1, `VOID` where `instances` is.
    """

    image: np.ndarray
    instances: np.ndarray
    classes: np.ndarray


def pair_codes(
    instances: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the pairs of instance and class that occur in two maps.

    Args:
        instances: Integers (H, W) from -1.
        classes: Integers (H, W) from -1.

    Returns:
        The number of the pair of each pixel (H, W), the pairs int64 (K, 2), sorted, and how many
        pixels each has (K,).

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.label_maps import pair_codes
        >>> codes, pairs, counts = pair_codes(np.array([[0, 7, 7]]), np.array([[0, 2, 2]]))
        >>> codes.tolist(), pairs.tolist(), counts.tolist()
        ([[0, 1, 1]], [[0, 0], [7, 2]], [1, 2])
    """
    base = int(classes.max()) + 2
    keys = (instances.astype(np.int64) + 1) * base + (classes + 1)
    highest = int(keys.max())
    if highest < _COUNTABLE:  # counting is many times faster than the sort inside np.unique
        counts = np.bincount(keys.ravel(), minlength=highest + 1)
        found = np.flatnonzero(counts)
        number = np.zeros(highest + 1, np.int64)
        number[found] = np.arange(len(found))
        codes, counts = number[keys], counts[found]
    else:
        found, codes, counts = np.unique(keys, return_inverse=True, return_counts=True)
        codes = codes.reshape(keys.shape)
    return codes, np.stack([found // base - 1, found % base - 1], axis=1), counts


def agreed_maps(
    where: Any, instances: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Make a map of instances and a map of classes agree.

    A pixel that is void in one map becomes void in both. An object has the class that most of its
    pixels have; its other pixels become void. Classes without an object, such as sky, stay.

    Args:
        where: The file, for the error.
        instances: Integers (H, W), 0 for the background, ids from 1, `VOID`.
        classes: Integers (H, W), 0 for the background, classes from 1, `VOID`.

    Returns:
        The two maps, int32 (H, W).

    Raises:
        ImageFileError: If the sizes differ or no pixel of an object has a class.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.label_maps import agreed_maps
        >>> instances, classes = np.array([[0, 1, 1, 1, -1]]), np.array([[0, 4, 4, 0, 4]])
        >>> [one.tolist() for one in agreed_maps("cat.png", instances, classes)]
        [[[0, 1, 1, -1, -1]], [[0, 4, 4, -1, -1]]]
    """
    if instances.shape != classes.shape:
        raise ImageFileError(
            f"{where} has instances of {_size(instances.shape)} pixels, but classes of "
            f"{_size(classes.shape)}."
        )
    codes, pairs, counts = pair_codes(instances, classes)
    void = (pairs == VOID).any(axis=1)
    objects = (pairs[:, 0] > 0) & ~void
    void |= objects  # but for what most pixels of an object are
    classed = np.flatnonzero(objects & (pairs[:, 1] > 0))
    # The last of each object in this order is its largest pair; of equal ones, the lower class.
    order = classed[np.lexsort((-pairs[classed, 1], counts[classed], pairs[classed, 0]))]
    last = np.append(np.diff(pairs[order, 0]) != 0, True)[: len(order)]
    void[order[last]] = False
    lacking = np.setdiff1d(pairs[objects, 0], pairs[order, 0])
    if len(lacking):
        raise ImageFileError(f"{where} has no class for the object {lacking[0]}.")
    table = np.where(void[:, None], VOID, pairs).astype(np.int32)
    return table[:, 0][codes], table[:, 1][codes]


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
