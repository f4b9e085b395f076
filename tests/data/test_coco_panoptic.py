from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from coco_layout import write_panoptic
from voc_layout import as_read

from keras_rpe.data import ImageFileError, coco_panoptic


def test_things_and_stuff(tmp_path):
    scenes = write_panoptic(tmp_path, 3)
    files = tmp_path / "annotations/panoptic_val2017.json", tmp_path / "val2017"
    options = {"crop_size": None, "batch_size": 1, "shuffle": False, "augment": False}
    segments = tmp_path / "annotations/panoptic_val2017"
    for more in ((), (segments,)):
        batches = list(coco_panoptic(*files, *more, **options))
        assert len(batches) == 3
        for (_, instances, classes), (_, labels) in zip(scenes.values(), batches):
            for key, wanted in (("instances", instances), ("classes", classes)):
                assert labels[key].dtype == tf.int32
                np.testing.assert_array_equal(labels[key][0], as_read(wanted))
    images, _ = next(iter(coco_panoptic(*files, crop_size=32, batch_size=2)))
    assert images.shape == (2, 32, 32, 3)
    with pytest.raises(ImageFileError, match="does not exist"):
        coco_panoptic(*files, tmp_path)
