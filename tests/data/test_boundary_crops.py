from __future__ import annotations

import math

import numpy as np
import pytest
from bsds500_files import drawn, segmentation
from scipy.ndimage import distance_transform_edt
from skimage.measure import label

from keras_rpe.data import find_boundary_pairs
from keras_rpe.data.boundary_crops import (
    AnnotatedImage,
    annotated_image,
    draw_center,
    plain_crop,
    segment_boundaries,
    turned_crop,
)
from keras_rpe.data.bsds import BoundaryAnnotation, read_boundary_pair
from keras_rpe.data.crops import draw_corner

SEGMENTS = [segmentation(shift=shift) for shift in range(3)]


@pytest.fixture
def item() -> AnnotatedImage:
    """Red is the first segmentation times 80, green the row and blue the column."""
    rows, columns = np.indices(SEGMENTS[0].shape)
    image = np.stack([SEGMENTS[0] * 80, rows, columns], -1).astype(np.uint8)
    return annotated_image(image, [BoundaryAnnotation(one, drawn(one) > 0) for one in SEGMENTS])


def test_boundaries_follow_the_rule_of_the_data_set():
    found = segment_boundaries(np.stack(SEGMENTS))
    np.testing.assert_array_equal(found, np.stack([drawn(one) for one in SEGMENTS]) > 0)


def test_boundaries_equal_those_of_real_files(bsds500_root):
    for pair in find_boundary_pairs(bsds500_root, ("train", "val"))[::30]:
        _, annotations = read_boundary_pair(pair)
        found = segment_boundaries(np.stack([one.segmentation for one in annotations]))
        np.testing.assert_array_equal(found, np.stack([one.boundaries for one in annotations]))


def test_plain_crop_has_the_boundaries_of_the_files(item):
    expected = np.mean([drawn(one) for one in SEGMENTS], axis=0, dtype=np.float32)
    image, shares = plain_crop(item, (3, 5), (30, 20))
    np.testing.assert_array_equal(image, item.image[3:33, 5:25])
    np.testing.assert_array_equal(shares, expected[3:33, 5:25])
    image, shares = plain_crop(item, (-4, 0), (50, 48))
    np.testing.assert_array_equal(shares, np.pad(expected, ((4, 6), (0, 0)), constant_values=-1))
    np.testing.assert_array_equal(image[:4], item.image[3::-1])


def test_crop_that_is_not_turned_is_the_image_and_void_lies_beyond_a_turned_one(item):
    image, shares = turned_crop(item, (20.0, 24.0), (40, 48), 0.0, 1.0, False)
    np.testing.assert_allclose(image, item.image, atol=1e-3)
    np.testing.assert_array_equal(shares, plain_crop(item, (0, 0), (40, 48))[1])
    _, shares = turned_crop(item, (20.0, 24.0), (60, 60), math.pi / 4, 1.0, False)
    assert (shares == -1).sum() == pytest.approx(3600 - 40 * 48, rel=0.1)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("zoom", [0.5, 1.4])
@pytest.mark.parametrize("turn", [0, 1, 7])
def test_boundaries_lie_where_the_turned_image_changes(item, turn, zoom, mirror):
    angle = turn * math.pi / 8
    one = item._replace(segmentations=item.segmentations[:1])
    image, shares = turned_crop(one, (19.0, 25.0), (36, 32), angle, zoom, mirror)
    assert image.dtype == shares.dtype == np.float32
    inside = shares >= 0
    np.testing.assert_array_equal(np.unique(shares[inside]), [0, 1])
    # Green and blue tell where in the image a pixel lies, but for those at its edge.
    known = (image[..., 1] > 1) & (image[..., 1] < 38) & (image[..., 2] > 1) & (image[..., 2] < 46)
    rows, columns = (np.round(image[..., axis]).astype(int) for axis in (1, 2))
    edges = drawn(SEGMENTS[0]) > 0
    far = distance_transform_edt(~edges)[rows, columns]
    on = (shares == 1) & known
    assert on.sum() > 10
    # A line lies beside the change, above or to the left of it, and so does one drawn anew.
    assert far[on].max() <= 1.5 + 1.5 / zoom
    seen = (known & inside & edges[rows, columns])[3:-3, 3:-3]
    assert distance_transform_edt(shares != 1)[3:-3, 3:-3][seen].max() <= 1.5 + 1.5 * max(zoom, 1)


@pytest.mark.parametrize("turn", range(0, 16, 3))
def test_turned_lines_part_the_segments_and_stay_thin(item, turn):
    one = item._replace(segmentations=item.segmentations[:1])
    for zoom in (0.7, 1.0):
        _, shares = turned_crop(one, (20.0, 24.0), (34, 34), turn * math.pi / 8, zoom, False)
        lines = np.where(shares == 1, 1, 0)
        # No gap: the lines part the disc and the halves above and below it.
        parts = label((shares == 0), connectivity=1)
        sizes = np.bincount(parts[parts > 0])
        assert (sizes > 12).sum() == 3
        # Thin: lines of one pixel fill no square of two by two, but where they meet.
        squares = lines[1:, 1:] + lines[:-1, 1:] + lines[1:, :-1] + lines[:-1, :-1] == 4
        assert squares.sum() <= 2


def test_places_lie_inside_the_image_where_they_can():
    rng = np.random.default_rng(0)
    for _ in range(50):
        row, column = draw_corner((50, 60), (30, 80), rng)
        assert 0 <= row <= 20
        assert -20 <= column <= 0
        center = draw_center((50, 60), (30, 20), 3 * math.pi / 4, 1.0, rng)
        reach = math.sqrt(0.5) * 25
        assert reach <= center[0] <= 50 - reach
        assert reach <= center[1] <= 60 - reach
        assert all(15 <= one <= 45 for one in draw_center((60, 60), (90, 90), 0.4, 0.5, rng))
