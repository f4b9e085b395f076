from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from voc_layout import as_read, pack_voc, write_sbd, write_voc

from keras_rpe.data import LabelFolderError, pascal_voc

WHOLE = {"crop_size": None, "batch_size": 1, "shuffle": False, "augment": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    write_voc(folder, 4, 2)
    return folder


def test_whole_images_of_folder_archive_and_sbd(tmp_path):
    scenes = write_voc(tmp_path, 3, 1)
    scenes |= write_sbd(tmp_path / "sbd", ["2010_1"])
    archive = pack_voc(tmp_path, tmp_path / "voc.tar")
    names = [*list(scenes)[:3], "2010_1"]
    for path in (tmp_path, archive):
        batches = list(pascal_voc(path, sbd=tmp_path / "sbd", **WHOLE))
        assert len(batches) == 4
        for name, (images, labels) in zip(names, batches):
            image, instances, classes = scenes[name]
            assert np.abs(images[0].numpy() - image).mean() < 4
            for key, wanted in (("instances", instances), ("classes", classes)):
                assert labels[key].dtype == tf.int32
                np.testing.assert_array_equal(labels[key][0], as_read(wanted))


def test_crops_for_training(folder):
    dataset = pascal_voc(folder, crop_size=(32, 40), batch_size=3, repeats=2, seed=1)
    assert len(dataset) == 3
    images, labels = next(iter(dataset))
    assert images.shape == (3, 32, 40, 3)
    assert labels["instances"].shape == labels["classes"].shape == (3, 32, 40)
    assert labels["instances"].numpy().max() >= 1


def test_pieces_of_an_object_are_one_instance_unless_split(folder):
    together, split = (
        [labels["instances"].numpy() for _, labels in pascal_voc(folder, split_pieces=s, **WHOLE)]
        for s in (False, True)
    )
    assert sum(one.max() for one in split) > sum(one.max() for one in together)


def test_names_and_classes(folder):
    assert len(pascal_voc(folder, "val", names=["2008_000005"], **WHOLE)) == 1
    with pytest.raises(LabelFolderError, match="'zebra'"):
        pascal_voc(folder, names=["zebra"])
    with pytest.raises(ValueError, match="classes of PASCAL VOC.*Received: 'dgo'"):
        pascal_voc("no_such_folder", class_names=["dgo"])
    with pytest.raises(ValueError, match="crop_size=0"):
        pascal_voc("no_such_folder", crop_size=0)


def test_file_damaged_later_is_one_sentence(tmp_path):
    write_voc(tmp_path, 1, 1)
    dataset = pascal_voc(tmp_path, crop_size=16)
    (tmp_path / "VOCdevkit/VOC2012/SegmentationClass/2008_000001.png").write_bytes(b"")
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(dataset)
    assert "2008_000001.png is empty" in caught.value.message
    assert "Traceback" not in caught.value.message
