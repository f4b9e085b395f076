"""Cut crops out of images and the boundaries drawn into them, turned and scaled, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from keras_rpe.data.boundary_file import BoundaryAnnotation
from keras_rpe.data.boundary_thinning import thin_lines

VOID = -1.0
"""The share of pixels beyond the image, which nobody has annotated."""

# Thinning looks this far: a line of two pixels is thin after as many steps.
_RIM = 4


class AnnotatedImage(NamedTuple):
    """An image in memory with its annotations.

    Attributes:
        image: uint8 (H, W, 3).
        segmentations: (annotators, H, W), in the smallest type that holds the numbers.
        counts: uint8 (H, W), how many annotators drew a boundary at a pixel.
    """

    image: np.ndarray
    segmentations: np.ndarray
    counts: np.ndarray

    @property
    def nbytes(self) -> int:
        """The memory taken, in bytes."""
        return self.image.nbytes + self.segmentations.nbytes + self.counts.nbytes


def annotated_image(image: np.ndarray, annotations: Sequence[BoundaryAnnotation]) -> AnnotatedImage:
    """Prepare an image (H, W, 3) and its annotations for cropping."""
    segmentations = np.stack([one.segmentation for one in annotations])
    segmentations = segmentations.astype(np.uint8 if segmentations.max() < 256 else np.uint16)
    counts = np.stack([one.boundaries for one in annotations]).sum(axis=0, dtype=np.uint8)
    return AnnotatedImage(image, segmentations, counts)


def segment_boundaries(segmentations: np.ndarray) -> np.ndarray:
    """Draw the boundaries between segments as lines of one pixel, as BSDS500 does.

    A pixel that differs from its neighbour to the right, below, or below to the right is
    marked, and the marks are thinned until nothing changes. All 1,633 maps `Boundaries` in the
    training and validation parts of BSDS500 follow from their `Segmentation` in this way, to the
    pixel.

    Args:
        segmentations: whole numbers (N, H, W), N independent segmentations.

    Returns:
        bool (N, H, W).

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.boundary_crops import segment_boundaries
        >>> segment_boundaries(np.array([[[1, 1, 2, 2]] * 3])).astype(int).tolist()
        [[[0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]]
    """
    marks = np.zeros(segmentations.shape, bool)
    marks[:, :-1] |= segmentations[:, 1:] != segmentations[:, :-1]
    marks[:, :, :-1] |= segmentations[:, :, 1:] != segmentations[:, :, :-1]
    marks[:, :-1, :-1] |= segmentations[:, 1:, 1:] != segmentations[:, :-1, :-1]
    return thin_lines(marks)


def plain_crop(
    item: AnnotatedImage, corner: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop as it is, with the boundaries of the files.

    Args:
        item: the image with its annotations.
        corner: the first row and column, which may lie outside the image.
        size: height and width of the crop.

    Returns:
        float32 pixels (h, w, 3), continued by reflection beyond the image, and float32 shares
        (h, w), `VOID` beyond it.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.boundary_crops import AnnotatedImage, plain_crop
        >>> item = AnnotatedImage(np.zeros((2, 2, 3)), np.eye(2)[None], np.eye(2))
        >>> plain_crop(item, (0, 1), (2, 2))[1].tolist()
        [[0.0, -1.0], [1.0, -1.0]]
    """
    rows, columns = (start + np.arange(side) for start, side in zip(corner, size))
    height, width = item.counts.shape
    inside = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
    place = np.ix_(_reflected(rows, height), _reflected(columns, width))
    shares = item.counts[place].astype(np.float32) / np.float32(len(item.segmentations))
    return item.image[place].astype(np.float32), np.where(inside, shares, np.float32(VOID))


def turned_crop(
    item: AnnotatedImage,
    centre: tuple[float, float],
    size: tuple[int, int],
    angle: float,
    zoom: float,
    mirror: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop out of the turned, enlarged and mirrored image.

    Pixels are interpolated linearly. Every annotator's segmentation is taken from the nearest
    pixel and its boundaries are drawn anew, so that they stay whole and one pixel thin.

    Args:
        item: the image with its annotations.
        centre: row and column of the middle of the crop, in pixels of the image from its corner.
        size: height and width of the crop.
        angle: in radians.
        zoom: pixels of the crop, along a side, for a pixel of the image.
        mirror: whether left and right change places.

    Returns:
        As `plain_crop`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.boundary_crops import AnnotatedImage, turned_crop
        >>> segments = np.repeat([[1, 2]], 4, axis=1).repeat(8, axis=0)
        >>> item = AnnotatedImage(np.zeros((8, 8, 3)), segments[None], np.zeros((8, 8)))
        >>> turned_crop(item, (4, 4), (6, 6), np.pi / 2, 1.0, False)[1].sum(axis=1).tolist()
        [0.0, 0.0, 6.0, 0.0, 0.0, 0.0]
    """
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    if mirror:
        matrix[:, 1] *= -1
    # From indices of the crop to indices of the image; the middle of pixel 0 lies at 0.5.
    offset = np.array(centre) - 0.5 - matrix @ ((np.array(size) - 1) / 2)
    image = np.stack(
        [
            ndimage.affine_transform(
                item.image[..., channel], matrix, offset, size, np.float32, 1, "reflect"
            )
            for channel in range(3)
        ],
        axis=-1,
    )
    rows, columns = (
        np.floor(
            (row[0] * np.arange(-_RIM, size[0] + _RIM))[:, None]
            + row[1] * np.arange(-_RIM, size[1] + _RIM)
            + (start + 0.5 + 1e-9)
        ).astype(np.intp)
        for row, start in zip(matrix, offset)
    )
    height, width = item.counts.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    place = rows.clip(0, height - 1) * width + columns.clip(0, width - 1)
    annotators = len(item.segmentations)
    drawn = segment_boundaries(item.segmentations.reshape(annotators, -1)[:, place])
    shares = np.where(inside, drawn.mean(axis=0, dtype=np.float32), np.float32(VOID))
    return image, np.ascontiguousarray(shares[_RIM:-_RIM, _RIM:-_RIM])


def draw_corner(
    shape: tuple[int, int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the first row and column of a crop that lies inside the image where it fits.

    Where the image is smaller than the crop, it lies anywhere inside the crop.
    """
    row, column = (
        int(rng.integers(min(0, extent - side), max(0, extent - side) + 1))
        for extent, side in zip(shape, size)
    )
    return row, column


def draw_centre(
    shape: tuple[int, int],
    size: tuple[int, int],
    angle: float,
    zoom: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Draw the middle of a turned crop, so that it lies inside the image where it fits.

    Where it does not fit, its middle lies in the middle half of the image.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.boundary_crops import draw_centre
        >>> draw_centre((64, 64), (64, 64), np.pi / 2, 1.0, np.random.default_rng(0))
        (32.0, 32.0)
    """
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    reaches = (
        (cosine * size[0] + sine * size[1]) / (2 * zoom),
        (sine * size[0] + cosine * size[1]) / (2 * zoom),
    )
    centre = []
    for extent, reach in zip(shape, reaches):
        low, high = reach, extent - reach
        if low > high:
            low, high = max(high, extent / 4), min(low, extent * 3 / 4)
        centre.append(float(rng.uniform(low, high)))
    return centre[0], centre[1]


def _reflected(index: np.ndarray, extent: int) -> np.ndarray:
    index = index % (2 * extent)
    return np.minimum(index, 2 * extent - 1 - index)
