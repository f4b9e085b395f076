from __future__ import annotations

import json
from pathlib import Path

import pytest

from keras_rpe.data import ImageFileError
from keras_rpe.data import coco as coco_file
from keras_rpe.data.coco import is_outside, read_categories, read_coco_json, read_images

PATH = Path("a.json")
IMAGE = {"id": 1, "file_name": "b/1.jpg", "height": 9, "width": 8}


def test_images_and_categories():
    images = read_images(PATH, [IMAGE, {**IMAGE, "id": 7, "file_name": "c.d.png"}])
    assert images == {1: ("b/1", "b/1.jpg", 9, 8), 7: ("c.d", "c.d.png", 9, 8)}
    categories = read_categories(PATH, [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}])
    assert categories == (("cat", "dog"), {3: 1, 90: 2})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON: Expecting property name"),
        (b"\xff\xfe\xfa", "cannot be read as JSON"),
        ('{"a":' * 50_000, "cannot be read as JSON"),
        ("[]", "needs a dictionary with images"),
        ('{"images": [], "annotations": []}', "has no list categories"),
        ('{"images": {}, "annotations": [], "categories": []}', "has no list images"),
        ('{"images": [], "annotations": [{}, 3]}', r"annotations\[1\] that is no dictionary"),
    ],
)
def test_damaged_files(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ImageFileError, match=rf"a\.json .*{words}") as caught:
        read_coco_json(path)
    assert "\n" not in str(caught.value)


def test_missing_or_large_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    with pytest.raises(ImageFileError, match=r"a\.json does not exist"):
        read_coco_json(path)
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    monkeypatch.setattr(coco_file, "MAX_BYTES", 10)
    with pytest.raises(ImageFileError, match="bytes, more than the 10"):
        read_coco_json(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": None}, "a whole number from 0 to .* as id of .*, and has none"),
        ({"id": -1}, "as id .*, and has -1"),
        ({"id": 1.0}, "as id .*, and has 1.0"),
        ({"id": True}, "as id .*, and has True"),
        ({"id": 10**40}, "as id"),
        ({"height": 7}, r"from 8 to .* as height of images\[0\], and has 7"),
        ({"width": "9"}, "as width .*, and has '9'"),
        ({"height": 2**20, "width": 2**20}, "more than the"),
        ({"file_name": None}, "no file_name"),
        ({"file_name": ""}, "no file_name"),
        ({"file_name": "../1.jpg"}, "outside of its folder"),
    ],
)
def test_images_out_of_range(change, words):
    with pytest.raises(ImageFileError, match=rf"^a\.json .*{words}"):
        read_images(PATH, [{**IMAGE, **change}])


def test_entries_that_are_twice():
    for other in ({"id": 2}, {"file_name": "c.jpg"}):
        with pytest.raises(ImageFileError, match="twice"):
            read_images(PATH, [IMAGE, {**IMAGE, **other}])
    for other in ({"id": 2, "name": "a"}, {"id": 1, "name": "b"}):
        with pytest.raises(ImageFileError, match="twice"):
            read_categories(PATH, [{"id": 1, "name": "a"}, other])


def test_nothing():
    with pytest.raises(ImageFileError, match="has no images"):
        read_images(PATH, [])
    with pytest.raises(ImageFileError, match="has 0 categories"):
        read_categories(PATH, [])
    with pytest.raises(ImageFileError, match=r"no name for categories\[0\]"):
        read_categories(PATH, [{"id": 1}])


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("a.jpg", False),
        ("val/a..b.jpg", False),
        ("..a/b.jpg", False),
        ("..", True),
        ("a/../../b.jpg", True),
        ("a\\..\\b.jpg", True),
        ("/etc/passwd", True),
        ("\\\\host\\a.jpg", True),
        ("C:a.jpg", True),
        ("a\0.jpg", True),
    ],
)
def test_names_that_lead_out_of_the_folder(name, outside):
    assert is_outside(name) is outside
