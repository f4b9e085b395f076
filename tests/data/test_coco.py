from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from coco_layout import (
    CATEGORIES,
    annotation,
    compressed,
    image_entry,
    run_lengths,
    write_instances,
    write_json,
    write_panoptic,
)
from PIL import Image
from voc_layout import as_read

from keras_rpe.data import (
    VOID,
    ImageFileError,
    LabelledImages,
    LabelMaps,
    coco,
    coco_instances,
    coco_panoptic,
    write_image,
)

SHAPE = (12, 16)
SQUARE = [2, 2, 10, 2, 10, 9, 2, 9]


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def polygon(*pieces: Any, **more: Any) -> dict[str, Any]:
    fields = {"id": 5, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [*pieces]}
    return {**fields, **more}


def runs(counts: Any) -> dict[str, Any]:
    return polygon(segmentation={"size": [*SHAPE], "counts": counts})


def write(folder: Path, annotations: list[Any]) -> Path:
    write_image(folder / "1.png", np.zeros((*SHAPE, 3), np.uint8))
    categories = [{"id": key, "name": name} for key, name in CATEGORIES]
    images = [image_entry(1, "1.png", np.zeros(SHAPE))]
    return write_json(folder, "instances", images, annotations, categories)


def read(folder: Path, annotations: list[Any], **options: Any) -> LabelMaps:
    return coco_instances(write(folder, annotations), folder, **options)[0]


def change(path: Path, edit: Any) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["instances", "panoptic"])
def test_maps_come_back_pixel_by_pixel(tmp_path, kind):
    write, find = {
        "instances": (write_instances, coco_instances),
        "panoptic": (write_panoptic, coco_panoptic),
    }[kind]
    scenes = write(tmp_path, 6)
    found = find(tmp_path / f"annotations/{kind}_val2017.json", tmp_path / "val2017")
    assert found.class_names == ("person", "dog", "bottle", "sky")[: 3 + (kind == "panoptic")]
    assert found.names == tuple(scenes)
    for maps, (image, instances, classes) in zip(found, scenes.values()):
        assert np.abs(maps.image.astype(int) - image).mean() < 4
        np.testing.assert_array_equal(maps.instances, as_read(instances))
        np.testing.assert_array_equal(maps.classes, as_read(classes))
        assert (maps.classes == VOID).any()


def test_smaller_object_wins_then_the_later_and_crowds_lie_below(tmp_path):
    annotations = [
        annotation(1, 1, 1, box(2, 2, 5, 5), "runs"),
        annotation(2, 1, 18, box(0, 0, 8, 8), "text"),
        annotation(3, 1, 44, box(2, 4, 5, 7), "text"),
        annotation(4, 1, 1, box(0, 6, 12, 12), "crowd"),
    ]
    maps = read(tmp_path, annotations)
    instances = np.zeros(SHAPE, int)
    instances[0:12, 6:12] = VOID
    instances[0:8, 0:8] = 2
    instances[2:5, 2:5] = 1
    instances[2:5, 4:7] = 3
    np.testing.assert_array_equal(maps.instances, instances)
    np.testing.assert_array_equal(maps.classes, np.array([0, 1, 2, 3, VOID])[instances])
    some = read(tmp_path, annotations, class_names=["dog"])
    np.testing.assert_array_equal(some.classes, box(0, 0, 8, 8))
    np.testing.assert_array_equal(some.instances, 2 * box(0, 0, 8, 8))
    with pytest.raises(ValueError, match=r"class_names.*'dgo'"):
        read(tmp_path, annotations, class_names=["dgo"])


def test_random_masks_are_those_of_pycocotools(tmp_path):
    api = pycocotools.mask
    rng = np.random.default_rng(0)
    for _ in range(20):
        pieces = [(rng.random(2 * n) * 15).round(2).tolist() for n in rng.integers(3, 9, 2)]
        wanted = api.decode(api.merge(api.frPyObjects(pieces, *SHAPE)))
        np.testing.assert_array_equal(read(tmp_path, [polygon(*pieces)]).instances, wanted)
        mask = rng.random(SHAPE) < rng.choice([0.0, 0.1, 0.5, 1.0])
        text = api.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        for counts in (text, run_lengths(mask), [*run_lengths(mask), 0, 0]):
            np.testing.assert_array_equal(read(tmp_path, [runs(counts)]).instances, mask)


@pytest.mark.parametrize(
    "counts",
    [
        *(None, [1, 2.0], [1, True], {"a": 1}, [-1, 193], [10**30], [2**63, 1], [3, 4], []),
        *("", "52", "12é", "1 2", "1p", "5P", "P" * 7 + "1", "P" * 10_000, "?", "o" * 99 + "0"),
        *([192, 1], compressed([192, 1]), compressed([191]), compressed([0, 2**28])),
    ],
)
def test_damaged_runs_are_refused(tmp_path, counts):
    path = write(tmp_path, [runs(counts)])
    with pytest.raises(ImageFileError, match=r"instances\.json: .*id=5\) has run lengths"):
        coco_instances(path, tmp_path)


def test_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match=r'pip install "keras-rpe\[coco\]"'):
        read(tmp_path, [polygon(SQUARE)])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (polygon([1, 1, 5, 5]), r"id=5\) has a polygon of 4 numbers"),
        (polygon([*SQUARE, 3]), "9 numbers"),
        (polygon([*SQUARE, 3, "4"]), "not a list of numbers"),
        (polygon([*SQUARE, 3, 40]), "far outside"),
        (polygon([*SQUARE, 3, float("nan")]), "far outside"),
        (polygon([*SQUARE, 3, 10**400]), "far outside"),
        (polygon(), r"id=5\) has no polygons and no run lengths"),
        (polygon(segmentation={"size": [16, 12], "counts": "P"}), r"\[16, 12\].*\[12, 16\]"),
        (polygon(SQUARE, image_id=9), r"id=5\) has the unknown image_id 9"),
        (polygon(SQUARE, category_id=2), r"id=5\) has the unknown category_id 2"),
        (polygon(SQUARE, iscrowd=2), "iscrowd=2"),
        (polygon(SQUARE, id="5"), r"annotations\[0\] .*id='5'"),
    ],
)
def test_entries_that_cannot_be_used(tmp_path, entry, words):
    with pytest.raises(ImageFileError, match=rf"instances\.json: .*{words}") as caught:
        coco_instances(write(tmp_path, [entry]), tmp_path)
    assert "\n" not in str(caught.value)
    entry = annotation(1, 1, 1, box(2, 2, 5, 5), "runs")
    with pytest.raises(ImageFileError, match=r"id=1\) occurs twice"):
        coco_instances(write(tmp_path, [entry, entry]), tmp_path)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c.update(images=[]), "needs images"),
        (lambda c: c.update(categories=[]), "needs images, and 1 to"),
        (lambda c: c["images"].append(c["images"][0]), r"images\[1\] .* twice"),
        (lambda c: c["images"].append({**c["images"][0], "id": 9}), r"images\[1\] .* twice"),
        (lambda c: c["categories"].append({"id": 1, "name": "a"}), r"categories\[3\] .* twice"),
        (lambda c: c["categories"].append({"id": 9, "name": "dog"}), "different names"),
        (lambda c: c["categories"][0].pop("name"), r"categories\[0\] .* has no name"),
        (lambda c: c["annotations"].append(3), r"annotations\[0\] is not a dictionary"),
        (lambda c: c.pop("categories"), "no list categories"),
        *(
            (lambda c, fields=fields: c["images"][0].update(fields), rf"images\[0\] .*{words}")
            for fields, words in [
                ({"id": True}, "id=True"),
                ({"id": 10**40}, "id=1000"),
                ({"height": 7}, "height=7"),
                ({"width": "9"}, "width='9'"),
                ({"height": 2**20, "width": 2**20}, "more than the"),
                *(
                    ({"file_name": name}, "file_name=")
                    for name in (None, "", "../b.jpg", "a\\..\\b.jpg", "/b.jpg", "C:b", "a\0")
                ),
            ]
        ),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, edit, words):
    path = write(tmp_path, [])
    change(path, edit)
    with pytest.raises(ImageFileError, match=rf"instances\.json.* {words}"):
        coco_instances(path, tmp_path)


def test_damaged_files_give_a_sentence(tmp_path, monkeypatch):
    path = write(tmp_path, [annotation(1, 1, 1, box(2, 2, 5, 5), "text")])
    data = path.read_bytes()
    damaged = [b"{", b"\xff\xfe\xfa", b'{"a":' * 50_000, b"[]"]
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), 2):
            changed[place] = rng.integers(32, 127)
        damaged.append(changed)
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            coco_instances(path, tmp_path)
        except ImageFileError as error:
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
    assert refused > 100
    path.write_bytes(data)
    coco_instances(path, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(coco, "_MAX_OUTLINE", 3)
        write(tmp_path, [polygon(SQUARE)])
        with pytest.raises(ImageFileError, match=r"id=5\) has a polygon that is too long"):
            coco_instances(path, tmp_path)
    monkeypatch.setattr(coco, "MAX_BYTES", 10)
    with pytest.raises(ImageFileError, match="bytes, more than the 10"):
        coco_instances(path, tmp_path)


def test_images_that_are_missing_or_of_another_size(tmp_path):
    path = write(tmp_path, [])
    found = coco_instances(path, tmp_path)
    assert not found[0].instances.any()
    write_image(tmp_path / "1.png", np.zeros((16, 12, 3), np.uint8))
    with pytest.raises(ImageFileError, match=r"1\.png has 16 x 12 .* 12 x 16 of .*json"):
        found[0]
    (tmp_path / "1.png").unlink()
    with pytest.raises(ImageFileError, match=r"1\.png does not exist"):
        coco_instances(path, tmp_path)


@pytest.fixture
def panoptic(tmp_path) -> Path:
    write_panoptic(tmp_path, 2)
    return tmp_path / "annotations/panoptic_val2017.json"


def find(panoptic: Path, *class_names: str) -> LabelledImages:
    return coco_panoptic(panoptic, panoptic.parents[1] / "val2017", class_names=class_names or None)


def test_panoptic_crowds_are_void(panoptic):
    before = find(panoptic)[0].instances
    change(panoptic, lambda c: c["annotations"][0]["segments_info"][0].update(iscrowd=1))
    maps = find(panoptic)[0]
    np.testing.assert_array_equal(maps.instances, np.where(before == 1, VOID, before))
    assert (maps.classes[before == 1] == VOID).all()


def test_chosen_panoptic_classes(panoptic):
    every, some = find(panoptic)[0], find(panoptic, "sky", "dog")[0]
    table = np.array([0, 0, 2, 0, 1, VOID])
    np.testing.assert_array_equal(some.classes, table[every.classes])
    kept = (some.classes > 0) | (some.classes == VOID)
    np.testing.assert_array_equal(some.instances, np.where(kept, every.instances, 0))
    with pytest.raises(ValueError, match=r"2017\.json.*'dgo'"):
        find(panoptic, "dgo")


def segment(content: dict[str, Any], **fields: Any) -> None:
    content["annotations"][1]["segments_info"][0].update(fields)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: segment(c, category_id=9), r"image_id=2\): segments_info\[0\] .*category_id 9"),
        (lambda c: segment(c, id=0), r"segments_info\[0\] .*id=0"),
        (lambda c: segment(c, id=2**24), "id=16777216"),
        (lambda c: segment(c, iscrowd=None), "iscrowd=None"),
        (lambda c: segment(c, id=c["annotations"][1]["segments_info"][1]["id"]), "occurs twice"),
        (lambda c: c["annotations"][1].update(segments_info=3), "no list segments_info"),
        (lambda c: c["annotations"][1].update(image_id=7), r"image_id=7\) is of an unknown image"),
        (lambda c: c["annotations"][1].update(image_id=1), r"image_id=1\) occurs twice"),
        (lambda c: c["annotations"][1].update(file_name="../a.png"), "file_name='../a.png'"),
        (lambda c: c["annotations"].pop(), "no annotation of the image 000000000002"),
        (lambda c: c["categories"][0].pop("isthing"), r"\(id=1\) .*isthing=None"),
    ],
)
def test_panoptic_entries_that_cannot_be_used(panoptic, edit, words):
    change(panoptic, edit)
    with pytest.raises(ImageFileError, match=rf"panoptic_val2017\.json.*{words}") as caught:
        find(panoptic)
    assert "\n" not in str(caught.value)


def test_colors_that_are_not_the_segments(panoptic):
    found = find(panoptic)
    png = panoptic.with_suffix("") / f"{found.names[1]}.png"
    colors = np.array(Image.open(png))
    first = json.loads(panoptic.read_text())["annotations"][1]["segments_info"][0]["id"]
    of_first = (colors == [first % 256, first // 256 % 256, first // 65536]).all(-1)
    write_image(png, np.where(of_first[..., None], np.uint8([7, 0, 0]), colors))
    with pytest.raises(ImageFileError, match=r"png has a segment 7 that"):
        found[1]
    write_image(png, np.where(of_first[..., None], np.uint8(0), colors))
    with pytest.raises(ImageFileError, match=rf"png has no pixel of the segment {first}"):
        found[1]
    write_image(png, colors[1:])
    with pytest.raises(ImageFileError, match=r"png has 47 x 64 pixels, not the 48 x 64 of .*json"):
        found[1]
    Image.fromarray(colors[..., 0]).save(png)
    with pytest.raises(ImageFileError, match="not a PNG of three channels"):
        found[1]
    png.unlink()
    with pytest.raises(ImageFileError, match=r"2\.png does not exist"):
        find(panoptic)
