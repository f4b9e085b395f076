from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_layout import CATEGORIES, annotation, image_entry, write_instances, write_json
from voc_layout import as_read

from keras_rpe.data import (
    VOID,
    ImageFileError,
    LabelMaps,
    find_coco_instances,
    read_coco_instances,
    write_image,
)
from keras_rpe.data import coco as coco_instances_file

SHAPE = (12, 16)
SQUARE = [2, 2, 10, 2, 10, 9, 2, 9]


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def write(folder: Path, annotations: list[Any]) -> Path:
    write_image(folder / "1.png", np.zeros((*SHAPE, 3), np.uint8))
    categories = [{"id": key, "name": name} for key, name in CATEGORIES]
    images = [image_entry(1, "1.png", np.zeros(SHAPE))]
    return write_json(folder, "instances", images, annotations, categories)


def read(folder: Path, annotations: list[Any], **options: Any) -> LabelMaps:
    (example,), names = find_coco_instances(write(folder, annotations), folder)
    return read_coco_instances(example, names, **options)


def test_runs_and_crowds_come_back_pixel_by_pixel(tmp_path):
    scenes = write_instances(tmp_path, 6)
    found, names = find_coco_instances(
        tmp_path / "annotations/instances_val2017.json", tmp_path / "val2017"
    )
    assert names == ("person", "dog", "bottle")
    assert [one.name for one in found] == list(scenes)
    for example in found:
        image, instances, classes = scenes[example.name]
        maps = read_coco_instances(example, names)
        assert np.abs(maps.image.astype(int) - image).mean() < 4
        np.testing.assert_array_equal(maps.instances, as_read(instances))
        np.testing.assert_array_equal(maps.classes, as_read(classes))
        assert (maps.classes == VOID).any()


def test_smaller_object_wins_then_the_later_and_crowds_lie_below(tmp_path):
    maps = read(
        tmp_path,
        [
            annotation(1, 1, 1, box(2, 2, 5, 5), "runs"),
            annotation(2, 1, 18, box(0, 0, 8, 8), "text"),
            annotation(3, 1, 44, box(2, 4, 5, 7), "text"),
            annotation(4, 1, 1, box(0, 6, 12, 12), "crowd"),
        ],
    )
    instances = np.zeros(SHAPE, int)
    instances[0:12, 6:12] = VOID
    instances[0:8, 0:8] = 2
    instances[2:5, 2:5] = 1
    instances[2:5, 4:7] = 3
    np.testing.assert_array_equal(maps.instances, instances)
    np.testing.assert_array_equal(maps.classes, np.array([0, 1, 2, 3, VOID])[instances])


def test_chosen_classes(tmp_path):
    annotations = [
        annotation(1, 1, 1, box(0, 0, 4, 4), "text"),
        annotation(2, 1, 44, box(0, 0, 8, 8), "text"),
        annotation(3, 1, 1, box(8, 8, 12, 12), "crowd"),
    ]
    maps = read(tmp_path, annotations, class_names=["bottle"])
    np.testing.assert_array_equal(maps.classes, box(0, 0, 8, 8))
    np.testing.assert_array_equal(maps.instances, 2 * box(0, 0, 8, 8))
    with pytest.raises(ValueError, match=r"instances\.json, such as 'person'. Received: 'dgo'"):
        read(tmp_path, annotations, class_names=["dgo"])


def polygon(*pieces: list[float], **more: Any) -> dict[str, Any]:
    fields = {"id": 5, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [*pieces]}
    return {**fields, **more}


def test_polygons_are_filled_as_by_coco(tmp_path):
    pytest.importorskip("pycocotools", reason='needs pip install -e ".[coco]"')
    maps = read(tmp_path, [polygon(SQUARE)])
    np.testing.assert_array_equal(maps.instances, box(2, 2, 9, 10))
    pieces = read(tmp_path, [polygon(SQUARE, [12, 0, 16, 0, 16, 4, 12, 4])])
    np.testing.assert_array_equal(pieces.instances, box(2, 2, 9, 10) | box(0, 12, 4, 16))
    beyond = read(tmp_path, [polygon([-3, -3, 20, -3, 20, 4, -3, 4])])
    np.testing.assert_array_equal(beyond.instances, box(0, 0, 4, 16))


def test_random_polygons_are_those_of_pycocotools(tmp_path):
    api = pytest.importorskip("pycocotools.mask", reason='needs pip install -e ".[coco]"')
    rng = np.random.default_rng(0)
    for _ in range(30):
        pieces = [(rng.random(2 * n) * 15).round(2).tolist() for n in rng.integers(3, 9, 2)]
        wanted = api.decode(api.merge(api.frPyObjects(pieces, *SHAPE)))
        np.testing.assert_array_equal(read(tmp_path, [polygon(*pieces)]).instances, wanted)


def test_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r'pip install "keras-rpe\[coco\]"'):
        read(tmp_path, [polygon(SQUARE)])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (polygon([1, 1, 5, 5]), "a polygon of 2 points for the annotation 5, not at least 3"),
        (polygon(SQUARE, [1.0]), "a polygon of 1 numbers for the annotation 5"),
        (polygon([*SQUARE, 3]), "a polygon of 9 numbers for the annotation 5"),
        (polygon([*SQUARE, 3, "4"]), "a polygon for the annotation 5 that is no list of numbers"),
        (polygon([*SQUARE, 3, None]), "no list of numbers"),
        (polygon(3), "no list of numbers"),
        (polygon([*SQUARE, 3, 40]), "a polygon far outside of its image for the annotation 5"),
        (polygon([*SQUARE, 3, float("nan")]), "far outside"),
        (polygon([*SQUARE, 3, float("-inf")]), "far outside"),
        (polygon([*SQUARE, 3, 10**400]), "far outside"),
        (polygon(), "no polygons and no run lengths for the annotation 5"),
        (polygon(segmentation=None), "no polygons and no run lengths"),
        (polygon(segmentation="x"), "no polygons and no run lengths"),
        (
            polygon(segmentation={"size": [16, 12], "counts": "P"}),
            r"of the size \[16, 12\] for the annotation 5, but its image has \[12, 16\]",
        ),
        (polygon(segmentation={"counts": "P"}), "of the size None"),
        (
            polygon(segmentation={"size": [12, 16], "counts": "52"}),
            "a damaged mask for the annotation 5: its runs cover 7 pixels, but the mask has 192",
        ),
        (polygon(SQUARE, image_id=9), "the unknown image_id 9 for the annotation 5"),
        (polygon(SQUARE, category_id=2), "the unknown category_id 2 for the annotation 5"),
        (polygon(SQUARE, category_id=None), "as category_id of the annotation 5, and has none"),
        (polygon(SQUARE, iscrowd=2), "as iscrowd of the annotation 5, and has 2"),
        (polygon(SQUARE, id="5"), r"as id of annotations\[0\], and has '5'"),
    ],
)
def test_entries_that_cannot_be_used(tmp_path, entry, words):
    with pytest.raises(ImageFileError, match=rf"instances\.json .*{words}") as caught:
        find_coco_instances(write(tmp_path, [entry]), tmp_path)
    assert "\n" not in str(caught.value)


def test_two_annotations_of_one_id(tmp_path):
    entry = annotation(1, 1, 1, box(2, 2, 5, 5), "runs")
    with pytest.raises(ImageFileError, match="has the annotation 1 twice"):
        find_coco_instances(write(tmp_path, [entry, entry]), tmp_path)


def test_long_polygon_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_instances_file, "_MAX_OUTLINE", 29)
    path = write(tmp_path, [polygon(SQUARE)])
    with pytest.raises(ImageFileError, match="a polygon that is too long for the annotation 5"):
        find_coco_instances(path, tmp_path)
    monkeypatch.setattr(coco_instances_file, "_MAX_OUTLINE", 30)
    find_coco_instances(path, tmp_path)


def test_images_that_are_missing_or_of_another_size(tmp_path):
    path = write(tmp_path, [])
    found, names = find_coco_instances(path, tmp_path)
    assert not read_coco_instances(found[0], names).instances.any()
    write_image(tmp_path / "1.png", np.zeros((16, 12, 3), np.uint8))
    with pytest.raises(ImageFileError, match=r"1\.png has 16 x 12 pixels, but .* tells 12 x 16"):
        read_coco_instances(found[0], names)
    (tmp_path / "1.png").unlink()
    with pytest.raises(ImageFileError, match=r"1\.png does not exist"):
        find_coco_instances(path, tmp_path)


def test_damaged_files_give_a_sentence(tmp_path):
    path = write(tmp_path, [annotation(1, 1, 1, box(2, 2, 5, 5), "text")])
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 2):
            damaged[place] = rng.integers(32, 127)
        path.write_bytes(damaged)
        try:
            find_coco_instances(path, tmp_path)
        except ImageFileError as error:
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
    assert refused > 150
