from __future__ import annotations

import pytest

from keras_rpe.data import VOC_CLASSES, ImageFileError, read_class_names
from keras_rpe.data.labels import class_numbers


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["cat", "dog"]', ("cat", "dog")),
        ('["background", "cat"]', ("cat",)),
        ('{"2": "cat", "1": "dog"}', ("dog", "cat")),
        ('{"classes": ["background", "cat"], "images": {}}', ("cat",)),
    ],
)
def test_names_of_each_form(tmp_path, text, names):
    (tmp_path / "a.json").write_text(text)
    assert read_class_names(tmp_path / "a.json") == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "cannot be read as JSON: Expecting value"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("3", "needs a list of names"),
        ("[1]", "needs a list of names"),
        ('[""]', "needs a list of names"),
        ("[]", "has 0 names"),
        ('["background"]', "has 0 names"),
        ('{"1": "a", "3": "b"}', "names of the classes 1 to 2"),
        ('["a", "b", "a"]', "has the class 'a' twice"),
    ],
)
def test_other_files(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ImageFileError, match=rf"a\.json .*{words}") as caught:
        read_class_names(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ImageFileError, match=r"a\.json does not exist"):
        read_class_names(tmp_path / "a.json")


def test_chosen_classes():
    assert class_numbers("VOC", VOC_CLASSES, None).tolist() == [*range(21), -1]
    table = class_numbers("VOC", VOC_CLASSES, ["person", "cat"])
    assert {i: n for i, n in enumerate(table.tolist()) if n} == {15: 1, 8: 2, 21: -1}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["dgo"], "classes of VOC, such as 'aeroplane'. Received: 'dgo'"),
        (["cat", "cat"], "each class once"),
        ([], "a list of at least one"),
        ("cat", "a list of at least one"),
        ([3], "a list of at least one"),
    ],
)
def test_unknown_class_names(names, words):
    with pytest.raises(ValueError, match=words):
        class_numbers("VOC", VOC_CLASSES, names)


def test_real_names(data_root):
    file = data_root / "coco_ccby" / "meta.json"
    if not file.is_file():
        pytest.skip(f"photographs of COCO not found in {file.parent}")
    names = read_class_names(file)
    assert (len(names), names[0], names[-1]) == (80, "person", "toothbrush")
