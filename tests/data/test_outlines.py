"""Readers of other programs find the pixels of the instances again."""

import json

import numpy as np
import pytest
import rasterio.features
import roifile
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from skimage.draw import disk

from keras_rpe.data import polygons, write_coco, write_geojson, write_imagej_rois
from keras_rpe.models import Instances


def instances_of(labels: np.ndarray) -> Instances:
    count = int(labels.max())
    boxes = [
        [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        for rows, columns in (np.nonzero(labels == k) for k in range(1, count + 1))
    ]
    scores = np.linspace(0.5, 1, count, dtype="float32")
    return Instances(labels, scores, np.array(boxes, "int32"), np.ones(count, "int32"))


def random_labels(seed: int) -> np.ndarray:
    """Rings, diagonal neighbors, parts and cuts by the border of the image."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 4, (6, 7)), np.ones((2, 3), int))
    labels[rng.random(labels.shape) < 0.1] = 0
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype("int32")


def signed_area(ring: np.ndarray) -> float:
    (x, y), (after_x, after_y) = ring.T, np.roll(ring, -1, axis=0).T
    return float(np.sum(x * after_y - after_x * y) / 2)


def ring_with_a_hole() -> np.ndarray:
    labels = np.zeros((9, 11), "int32")
    labels[0:7, 0:8], labels[2:4, 3:6] = 1, 0
    labels[8, 10] = 1  # Another part, in the corner of the image.
    labels[3, 4] = 2
    return labels


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_polygons_are_the_pixels(seed):
    labels = random_labels(seed)
    drawn = np.zeros_like(labels)
    for number, parts in enumerate(polygons(labels), start=1):
        shapes = [shapely.Polygon(part[0], part[1:]) for part in parts]
        assert all(shape.is_valid for shape in shapes)
        assert sum(shape.area for shape in shapes) == (labels == number).sum()
        shapes = [shapely.geometry.mapping(shape) for shape in shapes]
        drawn += number * rasterio.features.rasterize(shapes, labels.shape).astype("int32")
    np.testing.assert_array_equal(drawn, labels)


def test_geojson_is_what_qupath_reads(tmp_path):
    found = instances_of(ring_with_a_hole())
    write_geojson(tmp_path / "a.geojson", found)
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [one["geometry"]["type"] for one in features] == ["MultiPolygon", "Polygon"]
    for one, area, score in zip(features, found.areas, found.scores):
        assert shapely.geometry.shape(one["geometry"]).area == area
        properties = one["properties"]
        assert (properties["objectType"], properties["classification"]["name"]) == (
            "detection",
            "Nucleus",
        )
        values = {entry["name"]: entry["value"] for entry in properties["measurements"]}
        assert values == {"Score": pytest.approx(score), "Area px^2": area}


def test_imagej_finds_holes_and_parts(tmp_path):
    found = instances_of(ring_with_a_hole())
    write_imagej_rois(tmp_path / "a.zip", found)
    composite, single = roifile.roiread(tmp_path / "a.zip")
    assert [composite.name, single.name] == ["0001", "0002"]
    rings = composite.coordinates(multi=True)
    assert len(rings) == 3
    assert abs(sum(map(signed_area, rings))) == found.areas[0]
    assert abs(signed_area(single.coordinates())) == found.areas[1]
    assert (composite.left, composite.top, composite.right, composite.bottom) == (0, 0, 11, 9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_coco_masks_are_the_pixels(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("coco") / "a.json"
    labels = random_labels(seed)
    found = instances_of(labels)
    write_coco(path, found, "bild ü.png")
    content = json.loads(path.read_text())
    assert content["images"][0]["file_name"] == "bild ü.png"
    for number, one in enumerate(content["annotations"], start=1):
        np.testing.assert_array_equal(coco_mask.decode(one["segmentation"]), labels == number)
        assert one["area"] == coco_mask.area(one["segmentation"]) == found.areas[number - 1]
        assert one["bbox"] == coco_mask.toBbox(one["segmentation"]).tolist()


def test_a_thousand_nuclei_and_none(tmp_path):
    labels = np.zeros((1280, 1000), "int32")
    for k in range(1000):
        rows, columns = disk((16 + 32 * (k // 25), 20 + 40 * (k % 25)), 12)
        labels[rows, columns] = k + 1
    found = instances_of(labels)
    writers = {
        "a.geojson": write_geojson,
        "a.zip": write_imagej_rois,
        "a.json": lambda path, one: write_coco(path, one, "a.png"),
    }
    for name, write in writers.items():
        write(tmp_path / name, found)
    sizes = [len(json.loads((tmp_path / "a.geojson").read_text())["features"])]
    sizes += [len(roifile.roiread(tmp_path / "a.zip"))]
    sizes += [len(json.loads((tmp_path / "a.json").read_text())["annotations"])]
    assert sizes == [1000] * 3
    nothing = Instances(np.zeros((8, 8), "int32"), *(np.zeros(shape) for shape in (0, (0, 4), 0)))
    for name, write in writers.items():
        write(tmp_path / name, nothing)
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []


@pytest.mark.parametrize(
    "labels", [np.zeros((3, 3, 3), int), np.zeros((3, 3)), -np.eye(3, dtype=int)]
)
def test_other_arrays_are_refused(labels):
    with pytest.raises(ValueError, match="`labels` must be a map"):
        polygons(labels)
