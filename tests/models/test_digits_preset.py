"""The digits network that comes with the package, on digits that it was not trained on."""

from pathlib import Path

import numpy as np
import pytest

from keras_rpe.data import digits
from keras_rpe.metrics import Matching, matching
from keras_rpe.models import InstanceSegmenter


@pytest.fixture(scope="module")
def model() -> InstanceSegmenter:
    return InstanceSegmenter.from_preset("digits")


def pooled(model: InstanceSegmenter, images: np.ndarray, truths: np.ndarray) -> Matching:
    """Matches of all images, the background being a segment."""
    found = [model.predict_instances(image).labels for image in images]
    first, *others = (matching(a.astype(int) + 1, b + 1) for a, b in zip(truths, found))
    for one in others:
        first = first + one
    return first


def test_the_sphere_has_three_dimensions(model: InstanceSegmenter) -> None:
    embedding, _ = model.embed(np.zeros((1, 64, 64, 3), "float32"))
    assert embedding.shape == (1, 64, 64, 3)


def test_the_scenes_of_the_authors(model: InstanceSegmenter, golden_root: Path) -> None:
    with np.load(golden_root / "mean_shift_digits_a.npz", allow_pickle=False) as file:
        images, truths = file["image"], file["instances"]
    assert pooled(model, images, truths).panoptic_quality >= 0.93


def test_an_empty_scene_has_no_digits(model: InstanceSegmenter) -> None:
    assert len(model.predict_instances(np.zeros((64, 64, 3), "uint8"))) == 0


def test_unseen_digits_are_counted(model: InstanceSegmenter, data_root: Path) -> None:
    dataset = digits(
        data_root / "mnist_10k.npz", "test", num_scenes=30, batch_size=30, same_class_share=0.0
    )
    images, truths = next(iter(dataset))
    found = [model.predict_instances(image).labels.max() for image in images.numpy()]
    digits_there = [len(np.unique(truth[truth > 0])) for truth in truths.numpy()]
    assert np.mean(np.array(found) != digits_there) < 0.15
