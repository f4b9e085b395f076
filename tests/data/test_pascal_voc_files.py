from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from voc_layout import as_read, pack_voc, save_jpeg, save_palette, write_sbd, write_voc

from keras_rpe.data import (
    VOC_CLASSES,
    VOID,
    ImageFileError,
    LabelFolderError,
    LabelMaps,
    find_pascal_voc,
    read_pascal_voc,
    write_labels,
)

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
    image, instances, classes = scene
    assert np.abs(maps.image.astype(int) - image).mean() < 4
    assert maps.image.dtype == np.uint8
    for found, wanted in ((maps.instances, instances), (maps.classes, classes)):
        np.testing.assert_array_equal(found, as_read(wanted))
        assert found.dtype == np.int32


@pytest.mark.parametrize("place", ["", "VOCdevkit", ROOT, "voc.tar"])
def test_ten_images_come_back_pixel_by_pixel(unchanged, place):
    folder, scenes = unchanged
    assert len(scenes) == 10
    assert all((scene[1] == 255).any() for scene in scenes.values())
    found = find_pascal_voc(folder / place, "trainval")
    assert [one.name for one in found] == list(scenes)
    for example in found:
        check(read_pascal_voc(example), scenes[example.name])


def test_splits_are_those_of_the_lists(unchanged):
    folder, scenes = unchanged
    for split, names in (("train", list(scenes)[:7]), ("val", list(scenes)[7:])):
        assert [one.name for one in find_pascal_voc(folder, split)] == names


@pytest.mark.parametrize("place", ["VOCdevkit", "voc.tar"])
def test_sbd_adds_what_is_not_in_val_and_keeps_the_labels_of_voc(unchanged, tmp_path, place):
    folder, scenes = unchanged
    names = list(scenes)
    more = write_sbd(tmp_path / "benchmark_RELEASE/dataset", [*names[5:9], "2010_2", "2010_1"])
    for sbd in (tmp_path, tmp_path / "benchmark_RELEASE", tmp_path / "benchmark_RELEASE/dataset"):
        found = find_pascal_voc(folder / place, "train", sbd)
        assert [one.name for one in found] == [*names[:7], "2010_1", "2010_2"]
    for example in found:
        check(read_pascal_voc(example), scenes.get(example.name) or more[example.name])


def test_images_of_voc_serve_sbd(tmp_path):
    other = tmp_path / "voc"
    write_voc(other, 2, 1)
    write_sbd(tmp_path / "sbd", ["2008_000004"])
    image = tmp_path / "sbd/img/2008_000004.jpg"
    image.rename(other / ROOT / "JPEGImages/2008_000004.jpg")
    (example,) = find_pascal_voc(other, "train", tmp_path / "sbd")[2:]
    assert example.image.path.parent.name == "JPEGImages"
    assert read_pascal_voc(example).classes.max() > 0


def test_chosen_classes(unchanged):
    folder, scenes = unchanged
    for example in find_pascal_voc(folder, "val"):
        _, instances, classes = scenes[example.name]
        present = np.unique(classes[(classes > 0) & (classes < 255)])
        maps = read_pascal_voc(example, [VOC_CLASSES[present[-1] - 1]])
        of_class, void = classes == present[-1], classes == 255
        np.testing.assert_array_equal(maps.classes, np.where(void, VOID, of_class))
        np.testing.assert_array_equal(
            maps.instances, np.where(void, VOID, as_read(instances) * of_class)
        )
    with pytest.raises(ValueError, match="classes of PASCAL VOC.*Received: 'dgo'"):
        read_pascal_voc(example, ["dgo"])


def test_truncated_tar(unchanged, tmp_path):
    data = (unchanged[0] / "voc.tar").read_bytes()
    path = tmp_path / "cut.tar"
    for share in (0, 0.1, 0.5, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ImageFileError, match=r"cut\.tar cannot be read as a tar") as caught:
            find_pascal_voc(path)
        assert "\n" not in str(caught.value)


def replace(folder: Path, name: str, make: object) -> None:
    (folder / ROOT / name).unlink()
    if make is not None:
        make(folder / ROOT / name)


def gray(path: Path) -> None:
    write_labels(path, np.zeros((48, 64), int))


def small(path: Path) -> None:
    save_palette(path, np.zeros((40, 64), np.uint8))


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("JPEGImages/2008_000001.jpg", None, "has no JPEGImages/2008_000001.jpg"),
        ("SegmentationObject/2008_000001.png", None, "has no SegmentationObject/2008_000001.png"),
        ("SegmentationClass/2008_000002.png", gray, "2008_000002.png is a PNG .* with a palette"),
        ("SegmentationObject/2008_000002.png", gray, "2008_000002.png is a PNG .* with a palette"),
        ("SegmentationClass/2008_000002.png", small, "has 40 x 64 pixels, but its image .* 48 x"),
        ("JPEGImages/2008_000001.jpg", lambda p: p.write_bytes(b""), "is empty"),
        ("JPEGImages/2008_000001.jpg", lambda p: p.write_text("x"), "is not a PNG or JPEG image"),
    ],
)
def test_files_that_do_not_fit_are_named_together(folder, name, make, words):
    replace(folder, name, make)
    with pytest.raises(LabelFolderError, match=rf"^1 of 2 images .*{words}") as caught:
        find_pascal_voc(folder)
    assert "\n" not in str(caught.value)


def test_files_in_an_archive_are_named_with_it(folder):
    replace(folder, "SegmentationClass/2008_000002.png", gray)
    archive = pack_voc(folder, folder / "voc.tar")
    with pytest.raises(LabelFolderError, match=rf"Class/2008_000002\.png in {archive} is a PNG"):
        find_pascal_voc(archive)


def test_labels_that_cannot_be_used(folder):
    root = folder / ROOT
    example = find_pascal_voc(folder)[0]
    save_palette(root / "SegmentationClass/2008_000001.png", np.full((48, 64), 21, np.uint8))
    with pytest.raises(ImageFileError, match=r"Class/2008_000001\.png has the class 21, above"):
        read_pascal_voc(example)
    save_palette(root / "SegmentationClass/2008_000001.png", np.zeros((48, 64), np.uint8))
    with pytest.raises(ImageFileError, match=r"Object/2008_000001\.png has no class for the obj"):
        read_pascal_voc(example)
    save_jpeg(root / "JPEGImages/2008_000001.jpg", np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ImageFileError, match="has 48 x 64 pixels, but its image has 64 x 48"):
        read_pascal_voc(example)
    data = (root / "SegmentationObject/2008_000001.png").read_bytes()
    (root / "SegmentationObject/2008_000001.png").write_bytes(data[:-60])
    with pytest.raises(ImageFileError, match=r"000001\.(png|jpg) cannot be read as an image"):
        read_pascal_voc(example)


def test_class_without_object_is_void(folder):
    example = find_pascal_voc(folder)[0]
    classes = np.zeros((48, 64), np.uint8)
    classes[:20], classes[20:30] = 7, 9
    save_palette(example.classes.path, classes)
    save_palette(example.instances.path, (np.indices(classes.shape)[0] < 10).astype(np.uint8))
    rows = read_pascal_voc(example)
    assert rows.classes[[0, 12, 25, 40], 0].tolist() == [7, VOID, VOID, 0]
    assert rows.instances[[0, 12, 25, 40], 0].tolist() == [1, VOID, VOID, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2008_000001\n../../secret", "has a name that no image has: '../../secret'"),
        ("", "is empty|needs names"),
        ("\n", "needs names"),
        ("2008_000001\n2008_000001", "needs names, each once"),
    ],
)
def test_damaged_lists(folder, text, words):
    (folder / ROOT / "ImageSets/Segmentation/train.txt").write_text(text)
    with pytest.raises(ImageFileError, match=rf"train\.txt {words}"):
        find_pascal_voc(folder)


def test_missing_parts(folder, tmp_path):
    for path, words in [
        (tmp_path / "none", "path needs an existing folder or tar archive"),
        (tmp_path / ROOT / "JPEGImages", "holds no VOCdevkit/VOC2012"),
    ]:
        with pytest.raises(LabelFolderError, match=words):
            find_pascal_voc(path)
    with pytest.raises(LabelFolderError, match="holds no folders inst and cls"):
        find_pascal_voc(folder, "train", tmp_path)
    write_sbd(tmp_path / "sbd", ["2010_1", "2010_2", "2010_3"])
    (tmp_path / "sbd/img/2010_1.jpg").unlink()
    (tmp_path / "sbd/cls/2010_2.mat").unlink()
    with pytest.raises(LabelFolderError, match=r"2 of 5 .*has no image .*; .*has no classes .*mat"):
        find_pascal_voc(folder, "train", tmp_path / "sbd")
    (folder / ROOT / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(LabelFolderError, match=r"has no ImageSets/Segmentation/val\.txt"):
        find_pascal_voc(folder, "train", tmp_path / "sbd")


@pytest.mark.parametrize(
    ("split", "sbd", "words"),
    [("test", None, "split='test'"), ("val", "sbd", 'sbd needs split="train"')],
)
def test_bad_arguments(folder, split, sbd, words):
    with pytest.raises(ValueError, match=words):
        find_pascal_voc(folder, split, sbd)


def test_other_modes_of_pillow_are_named(folder):
    replace(
        folder,
        "SegmentationObject/2008_000001.png",
        lambda path: Image.new("RGB", (64, 48)).save(path),
    )
    with pytest.raises(LabelFolderError, match="of the mode RGB, not a PNG with a palette"):
        find_pascal_voc(folder)
