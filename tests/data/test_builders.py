"""The builders for TensorFlow Datasets; preparing data sets needs an extra and is slow."""

from __future__ import annotations

import pickle
import sys
import tarfile
from pathlib import Path
from typing import Any

import keras
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


def test_pascal_voc_is_found_in_each_layout(tmp_path):
    find = builders.pascal_voc_source
    with pytest.raises(LabelFolderError, match="holds neither VOCdevkit nor VOCtrainval"):
        find(tmp_path)
    archive = tmp_path / builders.VOC_ARCHIVE
    archive.touch()
    assert find(tmp_path) == (archive, None)
    for name in ("VOCdevkit", builders.SBD_FOLDER):
        (tmp_path / name).mkdir()
    assert find(tmp_path) == (tmp_path / "VOCdevkit", tmp_path / builders.SBD_FOLDER)


def test_coco_is_found(tmp_path):
    with pytest.raises(LabelFolderError, match=r"holds no annotations/panoptic_\*\.json"):
        builders.coco_source(tmp_path, "panoptic")
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations/panoptic_val2017.json"
    file.touch()
    (tmp_path / "annotations/captions_val2017.json").touch()
    with pytest.raises(LabelFolderError, match=r"val2017 is missing: .*json needs this folder"):
        builders.coco_source(tmp_path, "panoptic")
    (tmp_path / "val2017").mkdir()
    found = builders.coco_source(tmp_path, "panoptic")
    assert found == {"val2017": (file, tmp_path / "val2017")}


def test_digits_are_the_one_file_or_mnist(tmp_path):
    assert builders.digits_source(tmp_path / "none") is None
    (tmp_path / "notes.txt").write_bytes(b"")
    assert builders.digits_source(tmp_path) is None
    (tmp_path / "a.npz").write_bytes(b"")
    assert builders.digits_source(tmp_path) == tmp_path / "a.npz"
    (tmp_path / "b.npz").write_bytes(b"")
    with pytest.raises(LabelFolderError, match=r"holds 2 \.npz files, such as a\.npz and b\.npz"):
        builders.digits_source(tmp_path)


def write_folder(folder: Path) -> data.LabelPair:
    labels = np.repeat([[0, 4, 4, 4, 7, 7, 255, 255]], 9, 0)
    for part in ("images", "instances", "semantic"):
        (folder / part).mkdir(parents=True)
    write_image(folder / "images/a.png", np.zeros((9, 8, 3), np.uint8))
    write_labels(folder / "instances/a.png", labels)
    write_labels(folder / "semantic/a.png", np.where(labels == 255, 255, labels % 5))
    return data.find_label_pairs(folder, classes="semantic/*")[0]


def test_maps_of_a_label_folder(tmp_path):
    pair = write_folder(tmp_path)
    maps = builders.label_folder_maps(pair, 255)
    assert maps.instances[0].tolist() == [0, 4, 4, 4, 7, 7, VOID, VOID]
    assert maps.classes[0].tolist() == [0, 4, 4, 4, 2, 2, VOID, VOID]
    maps = builders.label_folder_maps(pair._replace(classes=None), None)
    assert maps.classes[0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    write_labels(tmp_path / "deep.png", np.zeros((9, 8), int))
    with pytest.raises(ImageFileError, match=r"deep\.png holds values of type uint16"):
        builders.label_folder_maps(pair._replace(image=tmp_path / "deep.png"), None)


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
        for key, wanted in (("instances", instances), ("classes", classes)):
            np.testing.assert_array_equal(found[name][key], as_read(wanted))
    images, labels = next(iter(builder.as_dataset(split, as_supervised=True)))
    assert images.shape[:2] == labels["instances"].shape == labels["classes"].shape


@pytest.mark.slow
def test_pascal_voc(tmp_path):
    scenes = write_voc(tmp_path, 3, 2)
    (tmp_path / "manual").mkdir()
    pack_voc(tmp_path, tmp_path / "manual" / builders.VOC_ARCHIVE)
    more = write_sbd(tmp_path / "manual" / builders.SBD_FOLDER / "dataset", ["2010_1"])
    builder = prepared(tmp_path, "PascalVoc")
    train = dict(list(scenes.items())[:3])
    check(builder, "train", train)
    check(builder, "trainval", scenes)
    check(builder, "train_sbd", train | more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"), [("CocoInstances", write_instances), ("CocoPanoptic", write_panoptic)]
)
def test_coco(tmp_path, name, write):
    scenes = write(tmp_path / "manual", 3, "val2017")
    check(prepared(tmp_path, name), "val2017", scenes)


@pytest.mark.slow
def test_label_folder(tmp_path):
    pair = write_folder(tmp_path / "manual")
    for config, number in builders.CONFIGS.items():
        builder = prepared(tmp_path, "LabelFolder", config=config)
        (one,) = builder.as_dataset("train").as_numpy_iterator()
        wanted = builders.label_folder_maps(pair, number)
        np.testing.assert_array_equal(one["instances"], wanted.instances)
        np.testing.assert_array_equal(one["classes"], wanted.classes)


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
@pytest.mark.parametrize("manual", [True, False])
def test_digits(tmp_path, monkeypatch, manual):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(builders, "SCENES", {"train": 6, "test": 4})
    source = blocks()
    if manual:
        (tmp_path / "manual").mkdir()
        np.savez(tmp_path / "manual" / "digits.npz", x=source[0], y=source[1])
    else:
        monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: (source, source))
    builder = prepared(tmp_path, "Digits")
    for split, count in builders.SCENES.items():
        loaded = tfds.load("digits", split=split, data_dir=builder.data_path.parents[1])
        found = sorted(_key(one) for one in tfds.as_numpy(loaded))
        assert len(found) == count
        if manual:
            dataset = data.digits(source, split, num_scenes=count, classes=True).unbatch()
            expected = [
                {"image": image, "count": labels["instances"].max(), **labels}
                for image, labels in tfds.as_numpy(dataset)
            ]
            assert found == sorted(map(_key, expected))


def _key(example: dict[str, np.ndarray]) -> list:
    return [
        np.asarray(example[name]).astype(int).tolist()
        for name in ("count", "image", "instances", "classes")
    ]
