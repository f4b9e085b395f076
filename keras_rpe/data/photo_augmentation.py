"""Random changes of photographs and their label maps: mirrored, but never turned."""

from __future__ import annotations

import random
from collections.abc import Callable

import keras
import tensorflow as tf


def photo_augmentation(
    seed: int | None = None,
) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """Make a random augmentation of photographs together with their label maps.

    Half of the images are mirrored left and right, with their maps. The images alone change in
    contrast, brightness and saturation.

    Args:
        seed: Makes the sequence of random numbers repeatable; `None` draws one from Python's
            generator, which `keras.utils.set_random_seed` sets.

    Returns:
        A function for `tf.data.Dataset.map` that takes and returns a dictionary of `images`
        (B, H, W, 3) in 0..255, and `segmentation_masks` (B, H, W, 1), both float32.

    Source:
        Kong & Fowlkes (CVPR 2018) train on PASCAL VOC with mirrored images and changed colors.

    Example:
        >>> import tensorflow as tf
        >>> from keras_rpe.data import photo_augmentation
        >>> images = tf.random.uniform((2, 8, 8, 3), maxval=255.0)
        >>> masks = 3.0 * tf.cast(images[..., :1] > 99.0, "float32")
        >>> changed = photo_augmentation(seed=1)({"images": images, "segmentation_masks": masks})
        >>> sorted(set(changed["segmentation_masks"].numpy().ravel().tolist()))
        [0.0, 3.0]
    """
    seed = random.randrange(2**31 - 16) if seed is None else seed
    layers = keras.layers
    flip = layers.RandomFlip("horizontal", seed=seed, dtype="float32")
    colors = [
        layers.RandomContrast(0.3, (0, 255), seed=seed + 1, dtype="float32"),
        layers.RandomBrightness(0.1, (0, 255), seed=seed + 2, dtype="float32"),
        layers.RandomSaturation((0.35, 0.65), (0, 255), seed=seed + 3, dtype="float32"),
    ]

    def augment(data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        data = flip(dict(data), training=True)  # a copy: the layer writes into what it gets
        images = data["images"]
        for layer in colors:
            images = layer(images, training=True)
        return {**data, "images": tf.clip_by_value(images, 0.0, 255.0)}

    return augment
