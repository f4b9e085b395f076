"""A folder of images and label images as a `tf.data.Dataset`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_rpe.data.crop_arguments import chosen_pairs
from keras_rpe.data.crop_options import crop_options
from keras_rpe.data.label_crops import LabelledImage, labelled_image
from keras_rpe.data.label_pair_maps import check_label_numbers, read_label_pair
from keras_rpe.data.label_pairs import (
    LabelPair,
    check_label_pairs,
    find_label_pairs,
    split_pairs,
)
from keras_rpe.data.labelled_dataset import labelled_dataset


def label_folder(
    path: str | Path,
    *,
    images: str = "images/*",
    instances: str = "instances/*",
    classes: str | None = None,
    crop_size: int | tuple[int, int] | None = 128,
    batch_size: int = 8,
    shuffle: bool = True,
    augment: bool | str | Callable[[dict[str, Any]], dict[str, Any]] = True,
    zoom: tuple[float, float] = (0.65, 1.5),
    repeats: int = 1,
    validation_split: float | None = None,
    subset: str | None = None,
    seed: int | None = None,
    names: Sequence[str] | None = None,
    split_pieces: bool = True,
    void: int | None = None,
    num_classes: int | None = None,
) -> tf.data.Dataset:
    """Read a folder of images and instance label images as batches for `fit`.

    All files are checked before anything else. Every epoch takes `repeats` crops of every
    image: nine of ten around a random instance, the others anywhere. Images smaller than the
    crop are continued by their edge pixels, with background as labels, or void with `classes` or
    `void`. Gray images become three equal channels and alpha is dropped. Up to 1 GiB of decoded
    images stays in memory.

    After cropping and augmenting, every connected piece (eight neighbours) becomes an instance
    of its own, with ids from 1 without gaps: a crop can cut an instance in two. An instance
    that is meant to have pieces far apart, such as an object behind a pole, is split as well,
    unless `split_pieces=False`.

    With `classes`, an object has the class that most of its pixels have; pixels of another one,
    or of none, become void, which is `VOID` (-1) in both maps: train with `ignore_label=VOID`.
    Pixels of a class without an instance, such as sky, keep their class.

    Args:
        path: the folder.
        images: a glob inside the folder that the images match.
        instances: a glob inside the folder that the label images match; an image and its
            labels share their name without ending.
        classes: a glob inside the folder that images of each pixel's class match, 0 for the
            background; None: labels are instances alone.
        crop_size: side of the square crops, or (height, width), or None for whole images at
            their own sizes, which needs `batch_size=1`.
        batch_size: crops per batch; the last batch of an epoch may be smaller.
        shuffle: new order and new crops in every epoch; False gives every epoch the same
            order and the same crops.
        augment: True for `default_augmentation`, "photo" for `photo_augmentation`, or a Keras
            layer or function on a dictionary of float32 `images` (B, H, W, 3) and
            `segmentation_masks` (B, H, W, 1), which number the regions of an image. It gets the
            crops with a margin, of which the middle is kept, so that turning finds real pixels.
        zoom: with `augment=True` or "photo", each crop is enlarged by a random factor from this
            range; factors below 1 reduce it and show more. Whole images keep their sizes.
        repeats: crops per image and epoch.
        validation_split: the share of images for validation, chosen by name and `seed` alone.
        subset: "training" or "validation", together with `validation_split`.
        seed: the same seed gives the same batches; None draws one from Python's generator.
        names: only these images, by their names without ending.
        split_pieces: whether each connected piece becomes an instance; False keeps the pieces of
            an instance together.
        void: the number of void pixels in the files, such as 255; None: there are none. They
            become `VOID` (-1).
        num_classes: the highest class that the files may have; None: any.

    Returns:
        A dataset of float32 images (B, h, w, 3) in the files' own value range and int32
        instance maps (B, h, w), or with `classes` a dictionary of these as `instances` and of
        `classes`, int32 (B, h, w), of known length.

    Raises:
        LabelFolderError: the folder has no usable pairs; the message lists every bad file.
        ValueError: an argument is not as above.

    Example:
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from keras_rpe.data import label_folder
    >>> import tempfile
    >>> from keras_rpe.data import write_image, write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("images", "instances"):
    ...         (Path(folder) / part).mkdir()
    ...     write_image(folder + "/images/cell.png", np.zeros((40, 40, 3), "uint8"))
    ...     write_labels(folder + "/instances/cell.png", 60000 * np.eye(40, dtype=int))
    ...     dataset = label_folder(folder, crop_size=32, batch_size=2, repeats=2, seed=1)
    ...     batch, labels = next(iter(dataset))
    >>> batch.shape, labels.shape, len(dataset)
    (TensorShape([2, 32, 32, 3]), TensorShape([2, 32, 32]), 1)
    """
    options = crop_options(
        crop_size, batch_size, shuffle, augment, zoom, repeats, seed, split_pieces
    )
    check_label_numbers(void, num_classes, classes)
    if (validation_split is None) != (subset is None) or subset not in (
        None,
        "training",
        "validation",
    ):
        raise ValueError(
            'subset needs "training" or "validation" together with validation_split, or neither '
            f"of the two. Received: subset={subset!r}, validation_split={validation_split}"
        )
    pairs = chosen_pairs(find_label_pairs(path, images, instances, classes), names)
    check_label_pairs(pairs, classes is not None)
    if validation_split is not None:
        training, validation = split_pairs(pairs, validation_split, seed)
        pairs = training if subset == "training" else validation

    def load(pair: LabelPair) -> LabelledImage:
        image, labels, kinds = read_label_pair(pair, void, num_classes)
        if kinds is None and void is not None:
            kinds = labels.clip(max=1)
        return labelled_image(image, labels, kinds)

    return labelled_dataset(pairs, load, options, classes is not None)
