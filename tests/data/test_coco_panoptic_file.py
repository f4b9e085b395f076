from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_layout import write_panoptic
from PIL import Image
from voc_layout import as_read

from keras_rpe.data import VOID, ImageFileError, find_coco_panoptic, read_coco_panoptic, write_image


@pytest.fixture
def folder(tmp_path) -> Path:
    write_panoptic(tmp_path, 2)
    return tmp_path


def find(folder: Path) -> Any:
    return find_coco_panoptic(folder / "annotations/panoptic_val2017.json", folder / "val2017")


def change(folder: Path, edit: Any) -> dict[str, Any]:
    path = folder / "annotations/panoptic_val2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return content


def test_segments_come_back_pixel_by_pixel(tmp_path):
    scenes = write_panoptic(tmp_path, 6)
    found, names = find(tmp_path)
    assert names == ("person", "dog", "bottle", "sky")
    assert [one.name for one in found] == list(scenes)
    for example in found:
        image, instances, classes = scenes[example.name]
        maps = read_coco_panoptic(example, names)
        assert np.abs(maps.image.astype(int) - image).mean() < 4
        np.testing.assert_array_equal(maps.instances, as_read(instances))
        np.testing.assert_array_equal(maps.classes, as_read(classes))
        assert (maps.classes[maps.instances == 0] == 4).all()


def test_crowds_are_void(folder):
    def crowd(content: dict[str, Any]) -> None:
        content["annotations"][0]["segments_info"][0]["iscrowd"] = 1

    found, names = find(folder)
    before = read_coco_panoptic(found[0], names).instances
    change(folder, crowd)
    found, names = find(folder)
    maps = read_coco_panoptic(found[0], names)
    np.testing.assert_array_equal(maps.instances, np.where(before == 1, VOID, before))
    assert (maps.classes[before == 1] == VOID).all()


def test_chosen_classes(folder):
    found, names = find(folder)
    every = read_coco_panoptic(found[0], names)
    some = read_coco_panoptic(found[0], names, ["sky", "dog"])
    table = np.array([0, 0, 2, 0, 1, VOID])
    np.testing.assert_array_equal(some.classes, table[every.classes])
    kept = (some.classes > 0) | (some.classes == VOID)
    np.testing.assert_array_equal(some.instances, np.where(kept, every.instances, 0))
    with pytest.raises(ValueError, match="Received: 'dgo'"):
        read_coco_panoptic(found[0], names, ["dgo"])


def segment(content: dict[str, Any], **fields: Any) -> None:
    content["annotations"][1]["segments_info"][0].update(fields)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: segment(c, category_id=9), "category_id 9 for segments_info.0. of the ann.* 2"),
        (lambda c: segment(c, id=0), "as id of segments_info.0. of the annotation .* 2, and has 0"),
        (lambda c: segment(c, id=2**24), "and has 16777216"),
        (
            lambda c: segment(c, iscrowd=None),
            "as iscrowd of segments_info.0., and has none|iscrowd",
        ),
        (
            lambda c: segment(c, id=c["annotations"][1]["segments_info"][1]["id"]),
            "has the segment [0-9]+ twice for the annotation of the image 2",
        ),
        (lambda c: c["annotations"][1].update(segments_info=3), "no list segments_info"),
        (lambda c: c["annotations"][1].update(image_id=7), "of the unknown image 7"),
        (lambda c: c["annotations"][1].update(image_id=1), "of the image 1 twice"),
        (lambda c: c["annotations"][1].update(file_name="../a.png"), "no file_name inside"),
        (lambda c: c["annotations"][1].update(file_name=None), "no file_name inside"),
        (lambda c: c["annotations"].pop(), "no annotation of the image 2"),
        (lambda c: c["categories"][0].pop("isthing"), "as isthing of the category 1, and has none"),
    ],
)
def test_entries_that_cannot_be_used(folder, edit, words):
    change(folder, edit)
    with pytest.raises(ImageFileError, match=rf"panoptic_val2017\.json .*{words}") as caught:
        find(folder)
    assert "\n" not in str(caught.value)


def test_colors_that_are_not_the_segments(folder):
    found, names = find(folder)
    png = found[1].segments_image.path
    colors = np.array(Image.open(png))
    first = found[1].segments[0].key
    of_first = (colors == [first % 256, first // 256 % 256, first // 65536]).all(-1)
    write_image(png, np.where(of_first[..., None], np.uint8([7, 0, 0]), colors))
    with pytest.raises(ImageFileError, match=rf"has no pixel of the segment {first}"):
        read_coco_panoptic(found[1], names)
    colors[0, 0] = 7, 0, 0
    write_image(png, colors)
    with pytest.raises(ImageFileError, match=r"png has the segment 7, which .*2017\.json lacks"):
        read_coco_panoptic(found[1], names)
    write_image(png, colors[1:])
    with pytest.raises(ImageFileError, match=r"png has 47 x 64 pixels, but .* tells 48 x 64"):
        read_coco_panoptic(found[1], names)
    Image.fromarray(colors[..., 0]).save(png)
    with pytest.raises(ImageFileError, match="not a PNG of three channels"):
        read_coco_panoptic(found[1], names)
    png.unlink()
    with pytest.raises(ImageFileError, match=r"2\.png does not exist"):
        find(folder)
