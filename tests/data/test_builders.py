"""The builders for TensorFlow Datasets; preparing data sets needs an extra and is slow."""

from __future__ import annotations

import pickle
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bsds500_files import add, drawn, segmentation
from coco_layout import write_instances, write_panoptic
from digit_sources import blocks
from voc_layout import as_read, pack_voc, write_sbd, write_voc

from keras_rpe import data
from keras_rpe.data import (
    VOID,
    ImageFileError,
    LabelFolderError,
    builders,
    write_image,
    write_labels,
)


def test_missing_package_is_named_with_its_command(monkeypatch):
    builders._builder_class.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r'pip install "keras-rpe\[data\]"'):
        data.PascalVoc  # noqa: B018
    for module in (data, builders):
        with pytest.raises(AttributeError, match="'PascalVoc2'"):
            module.PascalVoc2  # noqa: B018


def test_bsds500_is_found_in_each_layout(tmp_path):
    find = builders.bsds500_source
    with pytest.raises(LabelFolderError, match=r"holds neither images .* nor BSR_bsds500\.tgz"):
        find(tmp_path, tmp_path / "unpacked")
    inner = tmp_path / "BSR/BSDS500/data"
    add(inner, "a")
    (inner / "images/train/a.png").rename(inner / "images/train/a.jpg")
    assert find(tmp_path, tmp_path / "unpacked") == find(inner, tmp_path / "unpacked") == inner
    (tmp_path / "archive").mkdir()
    with tarfile.open(tmp_path / "archive" / builders.BSDS_ARCHIVE, "w:gz") as tar:
        tar.add(tmp_path / "BSR", "BSR")
    found = find(tmp_path / "archive", tmp_path / "unpacked")
    assert [pair.name for pair in data.find_boundary_pairs(found)] == ["a"]


def test_missing_files_are_named(tmp_path):
    def examples(name: str) -> Any:
        return builders._DATA_SETS[name].examples(tmp_path, None)

    for name, words in [
        ("PascalVoc", "holds neither VOCdevkit nor VOCtrainval"),
        ("CocoPanoptic", r"holds no annotations/panoptic_\*\.json"),
    ]:
        with pytest.raises(LabelFolderError, match=words):
            examples(name)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/panoptic_val2017.json").touch()
    with pytest.raises(LabelFolderError, match=r"val2017 is missing: .*json needs this folder"):
        examples("CocoPanoptic")


def test_examples_of_voc_and_coco(tmp_path):
    scenes = write_voc(tmp_path, 2, 1)
    pack_voc(tmp_path, tmp_path / builders.VOC_ARCHIVE)
    (tmp_path / "VOCdevkit").rename(tmp_path / "unused")
    more = write_sbd(tmp_path / builders.SBD_FOLDER / "dataset", ["2010_1"])
    splits = builders._DATA_SETS["PascalVoc"].examples(tmp_path, None)
    found = {split: dict(examples) for split, examples in splits.items()}
    names = list(scenes)
    assert {split: list(one) for split, one in found.items()} == {
        "train": names[:2],
        "val": names[2:],
        "trainval": names,
        "train_sbd": [*names[:2], *more],
    }
    write_panoptic(tmp_path, 1)
    ((_, example),) = builders._DATA_SETS["CocoPanoptic"].examples(tmp_path, None)["val2017"]
    assert set(example) == {"image", "instances", "classes", "name"}


def test_digits_are_the_one_file_or_mnist(tmp_path):
    assert builders.digits_source(tmp_path / "none") is None
    (tmp_path / "notes.txt").write_bytes(b"")
    assert builders.digits_source(tmp_path) is None
    (tmp_path / "a.npz").write_bytes(b"")
    assert builders.digits_source(tmp_path) == tmp_path / "a.npz"
    (tmp_path / "b.npz").write_bytes(b"")
    with pytest.raises(LabelFolderError, match=r"holds 2 \.npz files, such as a\.npz and b\.npz"):
        builders.digits_source(tmp_path)


def write_folder(folder: Path) -> None:
    labels = np.repeat([[0, 4, 4, 4, 7, 7, 255, 255]], 9, 0)
    for part in ("images", "instances", "semantic"):
        (folder / part).mkdir(parents=True)
    write_image(folder / "images/a.png", np.zeros((9, 8, 3), np.uint8))
    write_labels(folder / "instances/a.png", labels)
    write_labels(folder / "semantic/a.png", np.where(labels == 255, 255, labels % 5))


def folder_example(folder: Path, config: str) -> dict[str, Any]:
    ((_, example),) = builders._DATA_SETS["LabelFolder"].examples(folder, config)["train"]
    return example


def test_maps_of_a_label_folder(tmp_path):
    write_folder(tmp_path)
    example = folder_example(tmp_path, "void_255")
    assert example["instances"][0].tolist() == [0, 4, 4, 4, 7, 7, VOID, VOID]
    assert example["classes"][0].tolist() == [0, 4, 4, 4, 2, 2, VOID, VOID]
    (tmp_path / "semantic").rename(tmp_path / "other")
    example = folder_example(tmp_path, "plain")
    assert example["classes"][0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    write_labels(tmp_path / "images/a.png", np.zeros((9, 8), int))
    with pytest.raises(ImageFileError, match="a holds values of type uint16"):
        folder_example(tmp_path, "plain")


MAPS = ("instances", "classes")


def prepared(folder: Path, name: str, **options: Any) -> Any:
    tfds = pytest.importorskip(
        "tensorflow_datasets", reason='needs tensorflow-datasets: pip install -e ".[data]"'
    )
    kind = getattr(data, name)
    assert pickle.loads(pickle.dumps(kind)) is kind
    builder = kind(data_dir=folder / "prepared", **options)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=folder / "manual")
    )
    return builder


def check(builder: Any, split: str, scenes: dict[str, tuple[np.ndarray, ...]]) -> None:
    found = {one["name"].decode(): one for one in builder.as_dataset(split).as_numpy_iterator()}
    assert set(found) == set(scenes)
    for name, (image, instances, classes) in scenes.items():
        assert np.abs(found[name]["image"].astype(int) - image).mean() < 4
        for key, wanted in zip(MAPS, (instances, classes)):
            np.testing.assert_array_equal(found[name][key], as_read(wanted))
    images, labels = next(iter(builder.as_dataset(split, as_supervised=True)))
    assert images.shape[:2] == labels["instances"].shape == labels["classes"].shape


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"), [("CocoInstances", write_instances), ("CocoPanoptic", write_panoptic)]
)
def test_coco(tmp_path, name, write):
    scenes = write(tmp_path / "manual", 3, "val2017")
    check(prepared(tmp_path, name), "val2017", scenes)


@pytest.mark.slow
def test_label_folder(tmp_path):
    write_folder(tmp_path / "manual")
    for config in builders.CONFIGS:
        builder = prepared(tmp_path, "LabelFolder", config=config)
        (one,) = builder.as_dataset("train").as_numpy_iterator()
        wanted = folder_example(tmp_path / "manual", config)
        for key in ("image", "instances", "classes"):
            np.testing.assert_array_equal(one[key], wanted[key])


@pytest.mark.slow
def test_bsds500(tmp_path):
    inner = tmp_path / "BSR/BSDS500/data"
    for name in "ab":
        add(inner, name)
    add(inner, "v", "val", width=30)
    for file in inner.glob("images/*/*.png"):
        file.rename(file.with_suffix(".jpg"))
    (tmp_path / "manual").mkdir()
    with tarfile.open(tmp_path / "manual" / builders.BSDS_ARCHIVE, "w:gz") as tar:
        tar.add(tmp_path / "BSR", "BSR")
    builder = prepared(tmp_path, "Bsds500")
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == {"train": 2, "val": 1}
    examples = list(builder.as_dataset("train").as_numpy_iterator())
    assert sorted(one["name"] for one in examples) == [b"a", b"b"]
    expected = np.mean([drawn(segmentation(shift=one)) for one in range(4)], axis=0)
    for one in examples:
        assert one["annotators"] == 4
        np.testing.assert_allclose(one["shares"], expected, rtol=1e-6)
        np.testing.assert_array_equal(one["image"][..., 0], segmentation() * 80)


@pytest.mark.slow
def test_digits(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(builders, "SCENES", {"train": 6, "test": 4})
    source = blocks()
    (tmp_path / "manual").mkdir()
    np.savez(tmp_path / "manual" / "digits.npz", x=source[0], y=source[1])
    builder = prepared(tmp_path, "Digits")

    def key(image: np.ndarray, labels: dict[str, np.ndarray]) -> list:
        return [np.asarray(x).astype(int).tolist() for x in (image, *map(labels.get, MAPS))]

    for split, count in builders.SCENES.items():
        loaded = tfds.load("digits", split=split, data_dir=builder.data_path.parents[1])
        found = sorted(key(one["image"], one) for one in tfds.as_numpy(loaded))
        assert len(found) == count
        dataset = data.digits(source, split, num_scenes=count, classes=True).unbatch()
        assert found == sorted(key(*one) for one in tfds.as_numpy(dataset))
        assert all(one["count"] == one["instances"].max() for one in tfds.as_numpy(loaded))
