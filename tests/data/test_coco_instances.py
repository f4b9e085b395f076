from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from coco_layout import write_instances
from voc_layout import as_read

from keras_rpe.data import LabelFolderError, coco_instances


def test_images_with_run_lengths_and_crowds(tmp_path):
    scenes = write_instances(tmp_path, 3)
    files = tmp_path / "annotations/instances_val2017.json", tmp_path / "val2017"
    options = {"crop_size": None, "batch_size": 1, "shuffle": False, "augment": False}
    batches = list(coco_instances(*files, **options))
    assert len(batches) == 3
    for (image, instances, classes), (images, labels) in zip(scenes.values(), batches):
        assert np.abs(images[0].numpy() - image).mean() < 4
        for key, wanted in (("instances", instances), ("classes", classes)):
            assert labels[key].dtype == tf.int32
            np.testing.assert_array_equal(labels[key][0], as_read(wanted))
    crops = coco_instances(*files, crop_size=32, batch_size=2, class_names=["dog"], seed=1)
    for images, labels in crops:
        assert images.shape[1:] == (32, 32, 3)
        assert labels["classes"].numpy().max() <= 1
    assert len(coco_instances(*files, names=["000000000002"])) == 1
    with pytest.raises(LabelFolderError, match="'zebra'"):
        coco_instances(*files, names=["zebra"])
    with pytest.raises(ValueError, match=r"2017\.json, such as 'person'. Received: 'dgo'"):
        coco_instances(*files, class_names=["dgo"])
