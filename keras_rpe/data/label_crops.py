"""Cut pieces out of images and instance maps, in NumPy."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.measure import label

from keras_rpe.data.label_maps import VOID, pair_codes

_NEAR_INSTANCE = 0.9
_JITTER = 0.25
_COUNTABLE = 2**22


class LabelledImage(NamedTuple):
    """An image in memory with its instances.

    Attributes:
        image: (H, W), (H, W, 3) or (H, W, 4) as stored.
        labels: (H, W), ids from 1 without gaps, in the smallest type that holds them.
        boxes: the bounding box of each id, as a pair of slices.
        meaning: int32 (K, 2), the instance and the class that each number in `labels` stands for,
            the background first, then objects, classes without one, and void last; None where
            they are the instances.
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: list[tuple[slice, slice]]
    meaning: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """The memory taken, in bytes."""
        return self.image.nbytes + self.labels.nbytes

    @property
    def outside(self) -> int:
        """The number in `labels` of what lies beyond the image: void where that is known."""
        return 0 if self.meaning is None else len(self.meaning) - 1


def labelled_image(
    image: np.ndarray, labels: np.ndarray, classes: np.ndarray | None = None
) -> LabelledImage:
    """Prepare an image and its instance map, or its maps of instances and classes, for cropping.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.label_crops import labelled_image
    >>> item = labelled_image(np.zeros((8, 8)), np.diag([0, 9, 9, 0, 0, 0, 0, 5]))
    >>> item.labels.diagonal().tolist(), len(item.boxes)
    ([0, 2, 2, 0, 0, 0, 0, 1], 2)
    """
    if classes is not None:
        return _classed_image(image, labels, classes)
    highest = int(labels.max())
    if highest < _COUNTABLE:  # counting is many times faster than the sort inside np.unique
        present = np.bincount(labels.ravel(), minlength=1) > 0
        present[0] = False
        compact = np.where(present, np.cumsum(present), 0)[labels]
    else:
        ids, compact = np.unique(labels, return_inverse=True)
        compact = compact.reshape(labels.shape) + (0 if ids[0] == 0 else 1)
    compact = compact.astype(np.uint16 if compact.max() < 2**16 else np.int32)
    return LabelledImage(image, compact, _boxes(compact, int(compact.max())))


def _classed_image(image: np.ndarray, instances: np.ndarray, classes: np.ndarray) -> LabelledImage:
    codes, pairs, _ = pair_codes(instances, classes)
    kinds = np.where(pairs[:, 0] > 0, 1, np.where(pairs[:, 1] > 0, 2, 0))
    kinds[(pairs == VOID).any(axis=1)] = 3
    order = np.argsort(kinds, kind="stable")
    table = [[0, 0], *pairs[order][(kinds[order] == 1) | (kinds[order] == 2)], [VOID, VOID]]
    # The background is row 0 and void the last row, whether or not they occur.
    number = np.empty(len(pairs), np.int64)
    number[order] = np.cumsum(kinds[order] > 0)
    number[kinds == 3] = len(table) - 1
    compact = number[codes].astype(np.uint16 if len(table) <= 2**16 else np.int32)
    boxes = _boxes(compact, int((kinds == 1).sum()))
    return LabelledImage(image, compact, boxes, np.array(table, np.int32))


def _boxes(compact: np.ndarray, count: int) -> list[tuple[slice, slice]]:
    if count == 0:  # the function would take it for no limit
        return []
    return [(box[0], box[1]) for box in ndimage.find_objects(compact, count)]


def rgb_float(image: np.ndarray) -> np.ndarray:
    """Turn (H, W), (H, W, 3) or (H, W, 4) into float32 (H, W, 3): gray thrice, no alpha.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.label_crops import rgb_float
    >>> rgb_float(np.full((2, 2), 7, "uint8"))[0, 0].tolist()
    [7.0, 7.0, 7.0]
    """
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image[..., :3], dtype=np.float32)


def relabel_pieces(labels: np.ndarray) -> np.ndarray:
    """Give every connected piece of an id (eight neighbours) an id of its own, from 1.

    Args:
        labels: integers (H, W), 0 is background.

    Returns:
        int32 (H, W).

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.label_crops import relabel_pieces
    >>> relabel_pieces(np.array([[9, 0, 9, 4]])).tolist()
    [[1, 0, 2, 3]]
    """
    return label(labels, background=0, connectivity=2).astype(np.int32)


def draw_corner(
    item: LabelledImage, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the first row and column of a crop that lies inside the image where it fits.

    Nine crops of ten lie around a random pixel of a random instance, shifted by up to a quarter
    of the crop; the others lie anywhere. Where the image is smaller than the crop, it lies
    anywhere inside the crop, and the corner is negative.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.label_crops import draw_corner, labelled_image
    >>> item = labelled_image(np.zeros((20, 20)), np.zeros((20, 20), int))
    >>> row, column = draw_corner(item, (8, 8), np.random.default_rng(0))
    >>> 0 <= row <= 12, 0 <= column <= 12
    (True, True)
    """
    shape = item.labels.shape
    focus = None
    if item.boxes and rng.random() < _NEAR_INSTANCE:
        chosen = int(rng.integers(len(item.boxes)))
        box = item.boxes[chosen]
        pixels = np.flatnonzero(item.labels[box] == chosen + 1)
        width = box[1].stop - box[1].start
        row, column = divmod(int(rng.choice(pixels)), width)
        focus = (box[0].start + row, box[1].start + column)
    corner = []
    for axis in (0, 1):
        low, high = sorted((0, shape[axis] - size[axis]))
        if focus is None or low < 0:
            corner.append(int(rng.integers(low, high + 1)))
            continue
        shift = rng.uniform(0.5 - _JITTER, 0.5 + _JITTER) * size[axis]
        corner.append(int(np.clip(focus[axis] - round(shift), low, high)))
    return corner[0], corner[1]


def cut(
    item: LabelledImage,
    corner: tuple[int, int],
    size: tuple[int, int],
    margin: tuple[int, int],
    scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop with a margin around it.

    Outside an image that is as large as the crop, the margin goes on by reflection, of the
    image and the labels alike; an image smaller than the crop is continued by its edge pixels,
    with background as labels, or void where there are classes.

    Args:
        item: the image with its instance map.
        corner: the first row and column of the crop, without the margin.
        size: height and width of the crop, without the margin.
        margin: rows above and below, and columns left and right of the crop.
        scale: pixels of the image, along a side, that a pixel of the crop stands for: below 1 the
            crop is enlarged. Pixels are interpolated linearly then, labels taken from the nearest.

    Returns:
        The pixels, as stored or float32 where they are interpolated, and the labels, both of
        `size` plus twice the `margin`.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.label_crops import cut, labelled_image
    >>> item = labelled_image(np.arange(64).reshape(8, 8), np.ones((8, 8), int))
    >>> pixels, labels = cut(item, (0, 0), (2, 2), (0, 1))
    >>> pixels.tolist(), labels.shape
    ([[1, 0, 1, 2], [9, 8, 9, 10]], (2, 4))
    >>> cut(item, (2, 2), (1, 4), (0, 0), scale=0.5)[0].tolist()
    [[15.75, 16.25, 16.75, 17.25]]
    """
    rows, columns = (
        _sampled(item.labels.shape[axis], corner[axis], size[axis], margin[axis], scale)
        for axis in (0, 1)
    )
    known = rows.known[:, None] & columns.known
    labels = np.where(known, item.labels[rows.nearest][:, columns.nearest], item.outside)
    if scale == 1.0:
        return item.image[rows.nearest][:, columns.nearest], labels
    channels = (1,) * (item.image.ndim - 2)
    down, right = rows.share.reshape(-1, 1, *channels), columns.share.reshape(-1, *channels)
    upper, lower = item.image[rows.below], item.image[rows.above]

    def column(index: np.ndarray) -> np.ndarray:
        return upper[:, index] * (1 - down) + lower[:, index] * down

    return column(columns.below) * (1 - right) + column(columns.above) * right, labels


class _Sampled(NamedTuple):
    """What a crop takes of an axis of the image, one entry a pixel of the crop.

    Attributes:
        below: the pixel before the place.
        above: the pixel after it.
        share: how much of the value is that of the pixel after it, in [0, 1).
        nearest: the pixel at the place.
        known: whether the place has labels.
    """

    below: np.ndarray
    above: np.ndarray
    share: np.ndarray
    nearest: np.ndarray
    known: np.ndarray


def _sampled(extent: int, corner: int, size: int, margin: int, scale: float) -> _Sampled:
    # The middles of the crop's pixels, in pixels of the image.
    place = corner + (np.arange(-margin, size + margin) + 0.5) * scale - 0.5
    below, nearest = np.floor(place).astype(int), np.floor(place + 0.5).astype(int)
    known = (nearest >= 0) & (nearest < extent)
    reflects = extent >= round(size * scale)
    period = max(2 * (extent - 1), 1)

    def inside(index: np.ndarray) -> np.ndarray:
        if reflects:
            index = np.abs((index + extent - 1) % period - (extent - 1))
        return np.clip(index, 0, extent - 1)

    share = (place - below).astype(np.float32)
    known = np.ones_like(known) if reflects else known
    return _Sampled(inside(below), inside(below + 1), share, inside(nearest), known)
