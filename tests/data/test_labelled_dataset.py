from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from voc_layout import scene

from keras_rpe.data import VOID, ImageFileError
from keras_rpe.data.crops import (
    LabelledImage,
    crop_options,
    labelled_dataset,
    labelled_image,
    relabel_pieces,
)
from keras_rpe.data.labels import agreed_maps


class Item(NamedTuple):
    name: str
    seed: int


ITEMS = [Item(f"scene {seed}", seed) for seed in range(4)]


def maps(item: Item) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scene whose red is the instance, green the class, both times ten, and blue the row."""
    _, instances, classes = scene(item.seed, classes=5)
    labels = (np.where(one == 255, VOID, one.astype(int)) for one in (instances, classes))
    instances, classes = agreed_maps("scene", *labels)
    rows = np.indices(instances.shape)[0]
    image = np.stack([10 * (instances + 1), 10 * (classes + 1), rows], -1).astype(np.uint8)
    return image, instances, classes


def load(item: Item) -> LabelledImage:
    return labelled_image(*maps(item))


def dataset(classes: bool = True, **changes: object) -> tf.data.Dataset:
    options = {
        "crop_size": 32,
        "batch_size": 3,
        "shuffle": True,
        "augment": False,
        "zoom": (0.7, 1.5),
        "repeats": 2,
        "seed": 1,
        "split_pieces": False,
    }
    return labelled_dataset(ITEMS, load, crop_options(**{**options, **changes}), classes)


def test_shapes_types_and_length():
    data = dataset()
    assert data.element_spec == (
        tf.TensorSpec((None, 32, 32, 3), tf.float32),
        {
            "instances": tf.TensorSpec((None, 32, 32), tf.int32),
            "classes": tf.TensorSpec((None, 32, 32), tf.int32),
        },
    )
    assert [len(images) for images, _ in data] == [3, 3, 2]
    assert len(data) == 3
    assert dataset(False).element_spec[1] == tf.TensorSpec((None, 32, 32), tf.int32)


def numbered(instances: np.ndarray, split_pieces: bool) -> np.ndarray:
    """Number anew what is no void."""
    void = instances == VOID
    objects = np.where(void, 0, instances)
    if split_pieces:
        return np.where(void, VOID, relabel_pieces(objects))
    ids = [0, *sorted(set(objects.ravel().tolist()) - {0})]
    return np.where(void, VOID, np.vectorize(ids.index)(objects))


@pytest.mark.parametrize("split_pieces", [False, True])
def test_instances_and_classes_lie_on_their_pixels(split_pieces):
    pieces = 0
    for images, labels in dataset(split_pieces=split_pieces, crop_size=44):
        for image, instances, classes in zip(images.numpy(), *(labels[k].numpy() for k in labels)):
            red = np.rint(image[..., 0] / 10).astype(int) - 1
            np.testing.assert_array_equal(classes, np.rint(image[..., 1] / 10) - 1)
            np.testing.assert_array_equal(instances, numbered(red, split_pieces))
            pieces += instances.max()
    assert pieces > 8


def lone(images: tf.Tensor, labels: dict[str, tf.Tensor]) -> tuple[np.ndarray, ...]:
    return tuple(one[0].numpy() for one in (images, labels["instances"], labels["classes"]))


def test_whole_images_are_the_maps_themselves():
    data = dataset(crop_size=None, batch_size=1, shuffle=False, repeats=1)
    for item, batch in zip(ITEMS, data):
        for found, wanted in zip(lone(*batch), maps(item)):
            np.testing.assert_array_equal(found, wanted)


def test_beyond_the_image_all_is_void():
    batch = next(iter(dataset(crop_size=(80, 64), batch_size=1)))
    _, instances, classes = lone(*batch)
    outside = (instances == VOID).all(axis=1)
    assert outside.sum() == 80 - 48
    assert (classes[outside] == VOID).all()


@pytest.mark.parametrize("augment", [True, "photo"])
def test_augmented_labels_stay_together(augment):
    kinds = set()
    for _, labels in dataset(augment=augment):
        instances, classes = labels["instances"].numpy(), labels["classes"].numpy()
        np.testing.assert_array_equal(instances == VOID, classes == VOID)
        np.testing.assert_array_equal(instances > 0, classes > 0)
        for one, kind in zip(instances, classes):
            assert set(np.unique(one)) - {VOID, 0} == set(range(1, one.max() + 1))
            for number in range(1, one.max() + 1):
                assert len(np.unique(kind[one == number])) == 1
        kinds |= set(np.unique(classes).tolist())
    assert len(kinds) > 4


def test_photo_augmentation_mirrors_and_never_turns():
    data = dataset(augment="photo", zoom=(1.0, 1.0), crop_size=(48, 64), repeats=6)
    mirrored = 0
    for _, labels in data:
        for classes in labels["classes"].numpy():
            plain = [maps(item)[2] for item in ITEMS]
            same = any((classes == one).all() for one in plain)
            flipped = any((classes == one[:, ::-1]).all() for one in plain)
            assert same or flipped
            mirrored += flipped and not same
    assert 4 < mirrored < 20


def test_seed_repeats():
    def first(seed: int) -> np.ndarray:
        return next(iter(dataset(augment="photo", seed=seed)))[0].numpy()

    one = first(3)
    np.testing.assert_array_equal(one, first(3))
    assert (one != first(4)).any()


def test_numbers_made_up_by_an_augmentation_are_void():
    def blot(data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        corner = tf.reduce_max(tf.meshgrid(*(tf.range(n) for n in data["images"].shape[1:3])), 0)
        masks = tf.where(corner[None, ..., None] < 20, 5000.0, data["segmentation_masks"])
        return {**data, "segmentation_masks": tf.where(masks < 0.5, -3.0, masks)}

    _, instances, classes = lone(*next(iter(dataset(augment=blot, batch_size=1))))
    assert (instances[0, 0], classes[0, 0]) == (VOID, VOID)
    assert not (instances == 0).any()


def test_error_of_a_file_is_one_sentence():
    def broken(item: Item) -> LabelledImage:
        raise ImageFileError(f"{item.name} is broken.")

    options = crop_options(32, 3, True, "photo", (1.0, 1.0), 1, 1, False)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(labelled_dataset(ITEMS, broken, options, classes=True))
    assert "is broken." in caught.value.message
    assert "Traceback" not in caught.value.message


@pytest.mark.parametrize("split_pieces", [0, "no", None])
def test_bad_split_pieces(split_pieces):
    with pytest.raises(ValueError, match="split_pieces needs True or False"):
        dataset(split_pieces=split_pieces)
