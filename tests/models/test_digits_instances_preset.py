"""The network of digits with classes that comes with the package, on unseen digits."""

from pathlib import Path

import numpy as np
import pytest

from keras_rpe.data import digits
from keras_rpe.metrics import GroundTruth, MaskAveragePrecision
from keras_rpe.models import InstanceSegmenter


@pytest.fixture(scope="module")
def model() -> InstanceSegmenter:
    return InstanceSegmenter.from_preset("digits_instances")


def test_an_empty_scene_has_no_digits(model: InstanceSegmenter) -> None:
    assert model.num_classes == 10
    assert len(model.predict_instances(np.zeros((64, 64, 3), "uint8"))) == 0


def test_unseen_digits_have_their_classes(model: InstanceSegmenter, data_root: Path) -> None:
    dataset = digits(
        data_root / "mnist_10k.npz",
        "test",
        num_scenes=30,
        batch_size=1,
        classes=True,
        min_digits=1,
        same_class_share=0.0,
    )
    precision = MaskAveragePrecision()
    for images, labels in dataset:
        instances, classes = labels["instances"][0].numpy(), labels["classes"][0].numpy()
        # Digits that others cover altogether leave a gap in the ids.
        dense = np.unique(np.append(0, instances), return_inverse=True)[1][1:]
        truth = GroundTruth(dense.reshape(instances.shape), classes=classes)
        precision.update_state(truth, model.predict_instances(images[0].numpy()))
    assert precision.result()["AP50"] >= 0.85
