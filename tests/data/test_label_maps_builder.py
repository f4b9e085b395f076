"""The builders of instances and classes; preparing data sets needs an extra and is slow."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_layout import write_instances, write_panoptic
from voc_layout import as_read, pack_voc, write_sbd, write_voc

from keras_rpe import data
from keras_rpe.data import (
    VOID,
    ImageFileError,
    LabelFolderError,
    coco_instances_builder,
    coco_panoptic_builder,
    label_folder_builder,
    pascal_voc_builder,
    write_image,
    write_labels,
)
from keras_rpe.data.coco_source import coco_source
from keras_rpe.data.label_folder_builder import label_folder_maps

BUILDERS = {
    "PascalVoc": pascal_voc_builder,
    "CocoInstances": coco_instances_builder,
    "CocoPanoptic": coco_panoptic_builder,
    "LabelFolder": label_folder_builder,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_missing_package_is_named_with_its_command(monkeypatch, name):
    BUILDERS[name]._builder_class.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r'pip install "keras-rpe\[data\]"'):
        getattr(data, name)
    with pytest.raises(AttributeError, match="has no attribute"):
        getattr(BUILDERS[name], name + "2")


def test_pascal_voc_is_found_in_each_layout(tmp_path):
    source = pascal_voc_builder.pascal_voc_source
    with pytest.raises(LabelFolderError, match="holds neither VOCdevkit nor VOCtrainval"):
        source(tmp_path)
    archive = tmp_path / pascal_voc_builder.ARCHIVE
    archive.touch()
    assert source(tmp_path) == (archive, None)
    for name in ("VOCdevkit", pascal_voc_builder.SBD_FOLDER):
        (tmp_path / name).mkdir()
    assert source(tmp_path) == (tmp_path / "VOCdevkit", tmp_path / pascal_voc_builder.SBD_FOLDER)


@pytest.mark.parametrize("kind", ["instances", "panoptic"])
def test_coco_is_found(tmp_path, kind):
    with pytest.raises(LabelFolderError, match=rf"holds no annotations/{kind}_\*\.json"):
        coco_source(tmp_path, kind)
    (tmp_path / "annotations").mkdir()
    file = tmp_path / f"annotations/{kind}_val2017.json"
    file.touch()
    (tmp_path / "annotations/captions_val2017.json").touch()
    with pytest.raises(LabelFolderError, match=r"val2017 is missing: .*json needs this folder"):
        coco_source(tmp_path, kind)
    (tmp_path / "val2017").mkdir()
    assert coco_source(tmp_path, kind) == {"val2017": (file, tmp_path / "val2017")}


def write_folder(folder: Path) -> data.LabelPair:
    image = np.zeros((9, 8, 3), np.uint8)
    labels = np.repeat([[0, 4, 4, 4, 7, 7, 255, 255]], 9, 0)
    for part in ("images", "instances", "semantic"):
        (folder / part).mkdir(parents=True)
    write_image(folder / "images/a.png", image)
    write_labels(folder / "instances/a.png", labels)
    write_labels(folder / "semantic/a.png", np.where(labels == 255, 255, labels % 5))
    return data.find_label_pairs(folder, classes="semantic/*")[0]


def test_maps_of_a_label_folder(tmp_path):
    pair = write_folder(tmp_path)
    maps = label_folder_maps(pair, 255)
    assert maps.instances[0].tolist() == [0, 4, 4, 4, 7, 7, VOID, VOID]
    assert maps.classes[0].tolist() == [0, 4, 4, 4, 2, 2, VOID, VOID]
    maps = label_folder_maps(pair._replace(classes=None), None)
    assert maps.classes[0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    write_labels(tmp_path / "deep.png", np.zeros((9, 8), int))
    with pytest.raises(ImageFileError, match=r"deep\.png holds values of type uint16"):
        label_folder_maps(pair._replace(image=tmp_path / "deep.png"), None)


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
    pack_voc(tmp_path, tmp_path / "manual" / pascal_voc_builder.ARCHIVE)
    more = write_sbd(tmp_path / "manual" / pascal_voc_builder.SBD_FOLDER / "dataset", ["2010_1"])
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
    for config, void in label_folder_builder.CONFIGS.items():
        builder = prepared(tmp_path, "LabelFolder", config=config)
        (one,) = builder.as_dataset("train").as_numpy_iterator()
        for found, wanted in zip(
            (one["instances"], one["classes"]), label_folder_maps(pair, void)[1:]
        ):
            np.testing.assert_array_equal(found, wanted)
