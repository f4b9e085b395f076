"""Crops of images whose boundaries several people drew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from keras_rpe.metrics.boundary_matching import thin_lines

_VOID = np.float32(-1)  # the share of pixels beyond the image, which nobody has annotated

# Thinning looks this far: a line of two pixels is thin after as many steps.
_RIM = 4


class AnnotatedImage(NamedTuple):
    """An image in memory with its annotations."""

    image: np.ndarray  # uint8 (H, W, 3)
    segmentations: np.ndarray  # (annotators, H, W), in the smallest type that holds the numbers
    counts: np.ndarray  # uint8 (H, W), how many annotators drew a boundary at a pixel

    @property
    def nbytes(self) -> int:
        """The memory taken, in bytes."""
        return self.image.nbytes + self.segmentations.nbytes + self.counts.nbytes


def annotated_image(image: np.ndarray, annotations: Sequence[Any]) -> AnnotatedImage:
    """Prepare an image (H, W, 3) and its annotations for cropping."""
    segmentations = np.stack([one.segmentation for one in annotations])
    segmentations = segmentations.astype(np.uint8 if segmentations.max() < 256 else np.uint16)
    counts = np.stack([one.boundaries for one in annotations]).sum(axis=0, dtype=np.uint8)
    return AnnotatedImage(image, segmentations, counts)


def segment_boundaries(segmentations: np.ndarray) -> np.ndarray:
    """Draw the boundaries of N segmentations (N, H, W) as lines of one pixel, as BSDS500 does.

    A pixel that differs from its neighbor to the right, below, or below to the right is marked,
    and the marks are thinned until nothing changes. All 1,633 maps `Boundaries` in the training
    and validation parts of BSDS500 follow from their `Segmentation` in this way, to the pixel.
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

    Its first row and column may lie outside the image. The pixels, float32 (h, w, 3), are continued
    by reflection beyond the image, where the shares, float32 (h, w), are -1.
    """
    rows, columns = (start + np.arange(side) for start, side in zip(corner, size))
    height, width = item.counts.shape
    inside = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
    place = np.ix_(_reflected(rows, height), _reflected(columns, width))
    shares = item.counts[place].astype(np.float32) / np.float32(len(item.segmentations))
    return item.image[place].astype(np.float32), np.where(inside, shares, _VOID)


def turned_crop(
    item: AnnotatedImage,
    center: tuple[float, float],
    size: tuple[int, int],
    angle: float,
    zoom: float,
    mirror: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop, as `plain_crop` gives it, out of the turned, enlarged and mirrored image.

    Pixels are interpolated linearly. Every annotator's segmentation is taken from the nearest
    pixel and its boundaries are drawn anew, so that they stay whole and one pixel thin. `center` is
    in pixels of the image from its corner, `zoom` the pixels of the crop for one of the image.
    """
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    if mirror:
        matrix[:, 1] *= -1
    # From indices of the crop to indices of the image; the middle of pixel 0 lies at 0.5.
    offset = np.array(center) - 0.5 - matrix @ ((np.array(size) - 1) / 2)
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
    shares = np.where(inside, drawn.mean(axis=0, dtype=np.float32), _VOID)
    return image, np.ascontiguousarray(shares[_RIM:-_RIM, _RIM:-_RIM])


def draw_center(
    shape: tuple[int, int],
    size: tuple[int, int],
    angle: float,
    zoom: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Draw the middle of a turned crop, so that it lies inside the image where it fits.

    Where it does not fit, its middle lies in the middle half of the image.
    """
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    center = []
    for extent, side, other in zip(shape, size, size[::-1]):
        reach = (cosine * side + sine * other) / (2 * zoom)
        low, high = reach, extent - reach
        if low > high:
            low, high = max(high, extent / 4), min(low, extent * 3 / 4)
        center.append(float(rng.uniform(low, high)))
    return center[0], center[1]


def _reflected(index: np.ndarray, extent: int) -> np.ndarray:
    index = index % (2 * extent)
    return np.minimum(index, 2 * extent - 1 - index)
