from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from voc_layout import as_read, pack_voc, save_jpeg, save_palette, save_sbd, write_sbd, write_voc

from keras_rpe.data import (
    VOC_CLASSES,
    VOID,
    ImageFileError,
    LabelFolderError,
    LabelMaps,
    pascal_voc,
)
from keras_rpe.data.voc import _read_sbd

ROOT = "VOCdevkit/VOC2012"


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("voc")
    scenes = write_voc(folder)
    pack_voc(folder, folder / "voc.tar")
    return folder, scenes


@pytest.fixture
def folder(tmp_path) -> Path:
    write_voc(tmp_path, 2, 1)
    return tmp_path


def check(maps: LabelMaps, scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    assert np.abs(maps.image.astype(int) - scene[0]).mean() < 4
    assert maps.image.dtype == np.uint8
    for found, wanted in zip(maps[1:], scene[1:]):
        np.testing.assert_array_equal(found, as_read(wanted), strict=True)


@pytest.mark.parametrize("place", ["", "VOCdevkit", ROOT, "voc.tar"])
def test_ten_images_come_back_pixel_by_pixel(unchanged, place):
    folder, scenes = unchanged
    found = pascal_voc(folder / place, "trainval")
    assert found.names == tuple(scenes)
    assert found.class_names == VOC_CLASSES
    for maps, scene in zip(found, scenes.values()):
        check(maps, scene)
    assert pascal_voc(folder / place).names == found.names[:7]
    assert pascal_voc(folder / place, "val").names == found.names[7:]


@pytest.mark.parametrize("place", ["VOCdevkit", "voc.tar"])
def test_sbd_adds_what_is_not_in_val_and_keeps_the_labels_of_voc(unchanged, tmp_path, place):
    folder, scenes = unchanged
    names = list(scenes)
    more = write_sbd(tmp_path / "benchmark_RELEASE/dataset", [*names[5:9], "2010_2", "2010_1"])
    for sbd in (tmp_path, tmp_path / "benchmark_RELEASE", tmp_path / "benchmark_RELEASE/dataset"):
        found = pascal_voc(folder / place, "train", sbd)
        assert found.names == (*names[:7], "2010_1", "2010_2")
    for name, maps in zip(found.names, found):
        check(maps, scenes.get(name) or more[name])


def test_images_of_voc_serve_sbd(folder, tmp_path):
    write_sbd(tmp_path / "sbd", ["2008_000004"])
    image = tmp_path / "sbd/img/2008_000004.jpg"
    image.rename(folder / ROOT / "JPEGImages/2008_000004.jpg")
    (maps,) = pascal_voc(folder, "train", tmp_path / "sbd")[2:]
    assert maps.classes.max() > 0


def test_chosen_classes(unchanged):
    folder, scenes = unchanged
    for index, name in enumerate(pascal_voc(folder, "val").names):
        _, instances, classes = scenes[name]
        present = np.unique(classes[(classes > 0) & (classes < 255)])
        found = pascal_voc(folder, "val", class_names=[VOC_CLASSES[present[-1] - 1]])
        maps = found[index]
        of_class, void = classes == present[-1], classes == 255
        np.testing.assert_array_equal(maps.classes, np.where(void, VOID, of_class))
        np.testing.assert_array_equal(
            maps.instances, np.where(void, VOID, as_read(instances) * of_class)
        )
    with pytest.raises(ValueError, match=r"class_names.*'dgo'"):
        pascal_voc("no_such_folder", class_names=["dgo"])


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("JPEGImages/2008_000001.jpg", None, "has no JPEGImages/2008_000001.jpg"),
        ("SegmentationObject/2008_000001.png", None, "has no SegmentationObject/2008_000001.png"),
        (
            "SegmentationClass/2008_000002.png",
            lambda path: save_palette(path, np.zeros((40, 64), np.uint8)),
            "has 40 x 64 pixels, not the 48 x 64",
        ),
        ("JPEGImages/2008_000001.jpg", lambda path: path.write_bytes(b""), "is empty"),
    ],
)
def test_files_that_do_not_fit_are_named_together(folder, name, make, words):
    (folder / ROOT / name).unlink()
    if make is not None:
        make(folder / ROOT / name)
    for path in (folder, pack_voc(folder, folder / "voc.tar")):
        with pytest.raises(LabelFolderError, match=rf"^1 of 2 images .*{words}") as caught:
            pascal_voc(path)
        assert "\n" not in str(caught.value)


def test_labels_that_cannot_be_used(folder):
    root = folder / ROOT
    found = pascal_voc(folder)
    save_palette(root / "SegmentationClass/2008_000001.png", np.full((48, 64), 21, np.uint8))
    with pytest.raises(ImageFileError, match=r"Class/2008_000001\.png has the class 21, above"):
        found[0]
    save_palette(root / "SegmentationClass/2008_000001.png", np.zeros((48, 64), np.uint8))
    with pytest.raises(ImageFileError, match=r"Object/2008_000001\.png has no class for the obj"):
        found[0]
    save_jpeg(root / "JPEGImages/2008_000001.jpg", np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ImageFileError, match="has 48 x 64 pixels, not the 64 x 48 of"):
        found[0]
    data = (root / "SegmentationObject/2008_000001.png").read_bytes()
    (root / "SegmentationObject/2008_000001.png").write_bytes(data[:-60])
    with pytest.raises(ImageFileError, match=r"000001\.(png|jpg) cannot be read"):
        found[0]


def test_class_without_object_is_void(folder):
    classes = np.zeros((48, 64), np.uint8)
    classes[:20], classes[20:30] = 7, 9
    file, root = "2008_000001.png", folder / ROOT
    save_palette(root / "SegmentationClass" / file, classes)
    rows = (np.indices(classes.shape)[0] < 10).astype(np.uint8)
    save_palette(root / "SegmentationObject" / file, rows)
    rows = pascal_voc(folder)[0]
    assert rows.classes[[0, 12, 25, 40], 0].tolist() == [7, VOID, VOID, 0]
    assert rows.instances[[0, 12, 25, 40], 0].tolist() == [1, VOID, VOID, 0]


def test_damaged_lists(folder):
    path = folder / ROOT / "ImageSets/Segmentation/train.txt"
    for text in ("", "\n", "2008_000001\n" * 2):
        path.write_text(text)
        with pytest.raises(ImageFileError, match=r"train\.txt (is empty|needs names)"):
            pascal_voc(folder)
    path.write_text("2008_000001\n../../secret")
    with pytest.raises(LabelFolderError, match=r"has no JPEGImages/\.\./\.\./secret\.jpg"):
        pascal_voc(folder)


def test_missing_parts(folder, tmp_path):
    for path, words in [
        (tmp_path / "none", "none"),
        (tmp_path / ROOT / "JPEGImages", "holds no VOCdevkit/VOC2012"),
    ]:
        with pytest.raises(LabelFolderError, match=words):
            pascal_voc(path)
    with pytest.raises(LabelFolderError, match="holds no folders inst and cls"):
        pascal_voc(folder, "train", tmp_path)
    write_sbd(tmp_path / "sbd", ["2010_1", "2010_2", "2010_3"])
    (tmp_path / "sbd/img/2010_1.jpg").unlink()
    (tmp_path / "sbd/cls/2010_2.mat").unlink()
    with pytest.raises(LabelFolderError, match=r"2 of 5 .*has no image .*; .*has no classes .*mat"):
        pascal_voc(folder, "train", tmp_path / "sbd")
    for split, sbd in (("test", None), ("val", "sbd")):
        with pytest.raises(ValueError, match=f"split='{split}'"):
            pascal_voc(folder, split, sbd)


def sbd(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return _read_sbd(folder / "inst/a.mat", folder / "cls/a.mat")


def test_pixels_where_the_files_of_sbd_disagree_are_void(tmp_path):
    instances = np.array([[0, 1, 1, 1, 2, 0, 255, 0]])
    classes = np.array([[0, 8, 9, 0, 12, 12, 8, 255]])
    save_sbd(tmp_path, "a", instances, classes, np.array([[8], [12]], np.uint8))
    found = sbd(tmp_path)
    assert found[0].tolist() == [[0, 1, -1, -1, 2, -1, -1, -1]]
    assert found[1].tolist() == [[0, 8, -1, -1, 12, -1, -1, -1]]
    assert found[0].dtype == found[1].dtype == np.int32
    nothing = np.zeros((9, 8), np.uint8)
    save_sbd(tmp_path, "a", nothing, nothing, np.zeros((0, 0)))
    assert not sbd(tmp_path)[0].any()
    file = tmp_path / "cls/a.mat"
    for content in ({"GTcls": 3}, {"GTcls": {"Boundaries": 3}}, {"GTinst": {}}):
        scipy.io.savemat(file, content)
        with pytest.raises(ImageFileError, match=r"cls/a\.mat has .*GTcls|Segmentation"):
            sbd(tmp_path)
    file.write_bytes(file.read_bytes()[:150])
    with pytest.raises(ImageFileError, match="cannot be read as a MATLAB file"):
        sbd(tmp_path)


@pytest.mark.parametrize(
    ("instances", "classes", "categories", "words"),
    [
        ([[0, 1, 2]], [[0, 8, 8]], [[8]], "inst/a.mat has the instance 2, but categories of 1"),
        ([[0, 1]], [[0, 8]], [[21]], "inst/a.mat has the class 21, above the 20"),
        ([[0, 1]], [[0, 21]], [[8]], "cls/a.mat has the class 21, above the 20"),
        ([[0, 1]], [[0, 8]], [[0]], "no class for the instance 1"),
        ([[0, 1]], [[0], [8]], [[8]], "cls/a.mat has 2 x 1 pixels, not the 1 x 2 of .*inst/a.mat"),
        *(([[0, 1]], [[0, 8]], one, "Categories") for one in ([[1.5]], [[np.nan]], [[-8]])),
    ],
)
def test_what_does_not_fit_in_sbd(tmp_path, instances, classes, categories, words):
    save_sbd(tmp_path, "a", *map(np.array, (instances, classes, categories)))
    with pytest.raises(ImageFileError, match=words) as caught:
        sbd(tmp_path)
    assert "\n" not in str(caught.value)
