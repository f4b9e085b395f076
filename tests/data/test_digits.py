from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from digit_sources import blocks

from keras_rpe.data import digits
from keras_rpe.data.digits import digit_images, digit_scene
from keras_rpe.models import InstanceSegmenter

SMALL = {"num_scenes": 10, "batch_size": 4}
SOURCE = blocks()


def scenes(dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The images and the instances of one epoch."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in dataset]
    images, labels = zip(*batches)
    return np.concatenate(images), np.concatenate(labels)


def equal(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize(("num_scenes", "batch_size"), [(10, 4), (8, 4), (3, 100), (1, 1)])
@pytest.mark.parametrize("classes", [False, True])
def test_shapes_values_and_length(num_scenes, batch_size, classes):
    dataset = digits(SOURCE, num_scenes=num_scenes, batch_size=batch_size, classes=classes)
    maps = tf.TensorSpec((None, 64, 64), tf.int32)
    assert dataset.element_spec == (
        tf.TensorSpec((None, 64, 64, 3), tf.float32),
        {"instances": maps, "classes": maps} if classes else maps,
    )
    found = list(dataset)
    assert len(dataset) == len(found) == -(-num_scenes // batch_size)
    assert sum(len(images) for images, _ in found) == num_scenes


@pytest.mark.parametrize("split", ["train", "test"])
def test_scenes_are_those_of_their_generator(split):
    options = {"min_digits": 2, "max_digits": 5, "same_class_share": 0.5, "threshold": 60}
    dataset = digits(SOURCE, split, classes=True, seed=5, **SMALL, **options)
    images_by_digit = digit_images(SOURCE, split)
    number = 0
    for images, labels in dataset:
        for image, instances, classes in zip(images, labels["instances"], labels["classes"]):
            rng = np.random.default_rng([5, ["train", "test"].index(split), number])
            scene = digit_scene(rng, images_by_digit, **options)
            for one, other in zip(scene, (image, instances, classes)):
                np.testing.assert_array_equal(one, other)
            number += 1
    assert number == 10


def test_splits_share_no_digit():
    seen = []
    for split in ("train", "test"):
        images, _ = scenes(digits(SOURCE, split, num_scenes=200))
        # The largest part of a pixel is its gray value, and each image has one of its own.
        seen.append(set(np.unique(images.max(axis=-1))) - {0})
    assert len(seen[0]) == 120
    assert len(seen[1]) == 20
    assert not seen[0] & seen[1]


def test_seed_alone_decides():
    first = scenes(digits(SOURCE, **SMALL))
    assert equal(first, scenes(digits(SOURCE, seed=0, num_scenes=10, batch_size=3)))
    longer = scenes(digits(SOURCE, num_scenes=13, batch_size=5))
    assert equal(first, [one[:10] for one in longer])
    assert not equal(first, scenes(digits(SOURCE, seed=1, **SMALL)))
    random.seed(3)
    drawn = scenes(digits(SOURCE, seed=None, **SMALL))
    assert not equal(drawn, scenes(digits(SOURCE, seed=None, **SMALL)))
    random.seed(3)
    assert equal(drawn, scenes(digits(SOURCE, seed=None, **SMALL)))


def test_epochs_repeat_or_go_on():
    fixed = digits(SOURCE, **SMALL)
    assert equal(scenes(fixed), scenes(fixed))
    fresh = digits(SOURCE, fresh=True, **SMALL)
    epochs = [scenes(fresh) for _ in range(3)]
    together = [np.concatenate(parts) for parts in zip(*epochs)]
    assert equal(together, scenes(digits(SOURCE, num_scenes=30, batch_size=7)))
    assert not equal(epochs[0], epochs[1])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_scenes": 0}, "num_scenes needs a whole number from 1"),
        ({"num_scenes": -5}, "num_scenes needs"),
        ({"num_scenes": 1.5}, "num_scenes needs"),
        ({"num_scenes": True}, "num_scenes needs"),
        ({"batch_size": 0}, "batch_size needs a whole number from 1"),
        ({"batch_size": -1}, "batch_size needs"),
        ({"fresh": 1}, "fresh needs True or False"),
        ({"classes": "yes"}, "classes needs True or False"),
        ({"seed": -1}, "seed needs a whole number"),
        ({"max_digits": 10}, "max_digits needs a whole number from 1 to 9"),
        ({"min_digits": -1}, "min_digits needs"),
        ({"same_class_share": 2}, "same_class_share needs a number from 0 to 1"),
        ({"threshold": 256}, "threshold needs"),
        ({"split": "val"}, "split needs one of train, test"),
        ({"source": 3}, "source needs None, the path of an .npz file"),
    ],
)
def test_arguments_are_checked(options, reason):
    with pytest.raises(ValueError, match=f"^{reason}.* Received: "):
        digits(**{"source": SOURCE} | options)


@pytest.mark.parametrize("num_classes", [1, 10])
def test_segmenter_takes_them(num_classes):
    model = InstanceSegmenter("unet_small", num_classes=num_classes)
    model.compile("adam", run_eagerly=True)
    dataset = digits(SOURCE, num_scenes=2, batch_size=1, classes=num_classes > 1)
    losses = model.fit(dataset, epochs=1, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


def test_authors_images_are_alike(data_root, golden_root):
    golden = np.load(golden_root / "mean_shift_digits_a.npz")
    theirs, their_instances = golden["image"], golden["instances"]
    ours, our_instances = scenes(digits(data_root / "mnist_10k.npz", num_scenes=200, seed=1))
    gray = [
        images.max(axis=-1)[maps > 0]
        for images, maps in ((theirs, their_instances), (ours, our_instances))
    ]
    quantiles = [np.quantile(one, np.linspace(0.1, 0.9, 9)) for one in gray]
    np.testing.assert_allclose(*quantiles, atol=15)
    sizes = [
        np.concatenate([np.bincount(one.ravel())[1:] for one in maps])
        for maps in (their_instances, our_instances)
    ]
    assert abs(np.median(sizes[0]) - np.median(sizes[1])) < 12


def test_mnist_is_what_keras_loads(monkeypatch):
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: (SOURCE, SOURCE))
    images, _ = scenes(digits(num_scenes=300))
    assert len(np.unique(images.max(axis=-1))) == 141
