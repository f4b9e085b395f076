"""Scenes of handwritten digits as a `tf.data.Dataset`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_rpe.data.counted_dataset import counted_dataset
from keras_rpe.data.crop_arguments import SEEDS, check_count, check_seed
from keras_rpe.data.digit_images import SPLITS, digit_images
from keras_rpe.data.digit_scene import CANVAS, check_scene_arguments, digit_scene

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def digits(
    source: str | Path | tuple[Any, Any] | None = None,
    split: str = "train",
    *,
    num_scenes: int = 10_000,
    batch_size: int = 8,
    fresh: bool = False,
    classes: bool = False,
    min_digits: int = 0,
    max_digits: int = 9,
    same_class_share: float = 1 / 3,
    threshold: int = 0,
    seed: int | None = 0,
) -> tf.data.Dataset:
    """Draw the scenes of the digits tutorial of Kong & Fowlkes (CVPR 2018) as batches for `fit`.

    A scene is 0 to 9 digits of MNIST on black, some of which cover others, and each class has its
    color: see `digit_scene` in `keras_rpe.data.digit_scene`. Scenes are drawn while the data set
    is read, and are not kept.

    Each scene follows from the seed, the split and its number alone, whatever the batch size. With
    `fresh`, every epoch goes on where the one before it ended, so that no scene comes twice.

    A third of the authors' training scenes are of one class; of their test scenes, none was made
    to be: `split="test", same_class_share=0.0`.

    Args:
        source: `None` for MNIST, which Keras downloads once and keeps; the path of an .npz file
            with the arrays x_train, y_train, x_test and y_test, as Keras' mnist.npz, or with x and
            y; or a pair of arrays (x, y). Images x are uint8 (N, 28, 28), bright on black, and
            labels y integers from 0 to 9.
        split: "train" or "test", which have no image of a digit in common. Where the source has
            no split, every seventh image of each class is for the test.
        num_scenes: Scenes an epoch.
        batch_size: Scenes a batch; the last batch of an epoch may be smaller.
        fresh: Whether each epoch has new scenes; otherwise all have the same in the same order.
        classes: Whether labels are a dictionary of instances and classes, or instances alone.
        min_digits: The smallest number of digits in a scene, from 0.
        max_digits: The largest number of digits in a scene, up to 9.
        same_class_share: Share of the scenes whose digits are all of one class, in [0, 1].
        threshold: Gray value from 0 to 254 above which a pixel belongs to the digit.
        seed: The same seed gives the same scenes; `None` draws one from Python's generator.

    Returns:
        A dataset of float32 images (B, 64, 64, 3) in 0..255 and labels, of known length. Labels
        are int32 instance maps (B, 64, 64), 0 for the background, or a dictionary of these as
        `instances` and of `classes`, int32 (B, 64, 64): 0 for the background, 1 to 9 for these
        digits, and 10 for the 0.

    Raises:
        ValueError: If an argument is not as above, or MNIST cannot be downloaded.
        ImageFileError: If the file cannot be used; it is a ValueError.

    Source:
        Kong & Fowlkes, "Recurrent Pixel Embedding for Instance Grouping", CVPR 2018, and the
        first tutorial of its code.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data import digits
        >>> x, y = np.zeros((20, 28, 28), "uint8"), np.arange(20) % 10
        >>> x[:, 4:24, 12:16] = 255  # bars, in place of MNIST
        >>> dataset = digits((x, y), num_scenes=6, batch_size=4, classes=True)
        >>> images, labels = next(iter(dataset))
        >>> images.shape, labels["instances"].shape, labels["classes"].dtype, len(dataset)
        (TensorShape([4, 64, 64, 3]), TensorShape([4, 64, 64]), tf.int32, 2)
    """
    check_count("batch_size", batch_size)
    check_count("num_scenes", num_scenes)
    check_seed(seed)
    for argument, value in (("fresh", fresh), ("classes", classes)):
        if not isinstance(value, bool):
            raise ValueError(f"{argument} needs True or False. Received: {argument}={value!r}")
    check_scene_arguments(min_digits, max_digits, same_class_share, threshold)
    images = digit_images(source, split)
    seed = random.randrange(SEEDS) if seed is None else seed

    def draw(number: int) -> Batch:
        return digit_scene(
            np.random.default_rng([seed, SPLITS.index(split), number]),
            images,
            min_digits=min_digits,
            max_digits=max_digits,
            same_class_share=same_class_share,
            threshold=threshold,
        )

    dataset = tf.data.Dataset.from_generator(
        _batches(draw, num_scenes, batch_size, fresh),
        output_signature=(
            tf.TensorSpec((None, CANVAS, CANVAS, 3), tf.uint8),
            tf.TensorSpec((None, CANVAS, CANVAS), tf.int32),
            tf.TensorSpec((None, CANVAS, CANVAS), tf.int32),
        ),
    )
    dataset = dataset.map(_with_classes if classes else _without_classes)
    length = math.ceil(num_scenes / batch_size)
    return counted_dataset(dataset, length)


def _batches(
    draw: Callable[[int], Batch], num_scenes: int, batch_size: int, fresh: bool
) -> Callable[[], Iterator[Batch]]:
    """Make the generator function of one dataset, which counts its epochs."""
    epoch = 0

    def generate() -> Iterator[Batch]:
        nonlocal epoch
        first = epoch * num_scenes if fresh else 0
        epoch += 1
        for start in range(first, first + num_scenes, batch_size):
            stop = min(start + batch_size, first + num_scenes)
            images, instances, classes = zip(*(draw(number) for number in range(start, stop)))
            yield np.stack(images), np.stack(instances), np.stack(classes)

    return generate


@tf.autograph.experimental.do_not_convert
def _with_classes(
    images: tf.Tensor, instances: tf.Tensor, classes: tf.Tensor
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    return tf.cast(images, tf.float32), {"instances": instances, "classes": classes}


@tf.autograph.experimental.do_not_convert
def _without_classes(
    images: tf.Tensor, instances: tf.Tensor, classes: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(images, tf.float32), instances
