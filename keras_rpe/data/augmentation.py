"""Random changes of images together with their label maps."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

SEEDS = 2**31 - 16
"""Seeds lie below it; Keras' layers take a few above the one given."""

_SMALLEST_RANGE = 1e-12

Augmentation = Callable[[dict[str, Any]], dict[str, Any]]


def default_augmentation(
    seed: int | None = None, crop_size: tuple[int, int] | None = None
) -> Augmentation:
    """Make a random augmentation of images together with their instance maps.

    Both are turned by any angle and flipped; where they end, they are continued by reflection.
    Only the images change in contrast, brightness and gamma, are blurred now and then, and get a
    slight Gaussian noise, the same in all channels. Instance maps are taken from the nearest
    pixel, so that no id appears that was not there.

    Args:
        seed: makes the sequence of random numbers repeatable; None draws one from Python's
            generator, which `keras.utils.set_random_seed` sets.
        crop_size: the height and width of the middle to keep, or None for all. Pixels that turn
            out of sight are then left out of the later steps, which saves time.

    Returns:
        A function for `tf.data.Dataset.map` that takes and returns a dictionary of `images`
        (B, H, W, 3) in any value range, and `segmentation_masks` (B, H, W, 1) with ids up to
        2**24, both float32. The lowest value of an image, or 0 if that is lower, and its
        highest value stay the limits of the changed image.

    Example:
        >>> import tensorflow as tf
        >>> from keras_rpe.data import default_augmentation
        >>> augment = default_augmentation(seed=1)
        >>> images = tf.random.uniform((1, 16, 16, 3))
        >>> masks = 7.0 * tf.cast(images[..., :1] > 0.5, "float32")
        >>> changed = augment({"images": images, "segmentation_masks": masks})
        >>> sorted(set(changed["segmentation_masks"].numpy().ravel().tolist()))
        [0.0, 7.0]
    """
    seed = random.randrange(SEEDS) if seed is None else seed
    # float32 whatever the global policy: half precision would merge ids above 2048.
    layers = keras.layers
    turn = layers.RandomRotation(1.0, "reflect", seed=seed, dtype="float32")
    flip = layers.RandomFlip("horizontal_and_vertical", seed=seed + 2, dtype="float32")
    shade = [
        layers.RandomContrast(0.3, (0, 1), seed=seed + 3, dtype="float32"),
        layers.RandomBrightness(0.1, (0, 1), seed=seed + 4, dtype="float32"),
        layers.RandomGaussianBlur(0.5, 3, 1.0, (0, 1), seed=seed + 5, dtype="float32"),
    ]
    generator = tf.random.Generator.from_seed(seed + 6)

    def augment(data: dict[str, Any]) -> dict[str, Any]:
        data = dict(data)  # the layers write into the dictionary that they get
        data = turn(data, training=True)
        if crop_size is not None:
            data = {key: keep_middle(value, crop_size) for key, value in data.items()}
        data = flip(data, training=True)
        images = data["images"]
        low = tf.minimum(tf.reduce_min(images, axis=(1, 2, 3), keepdims=True), 0.0)
        extent = tf.reduce_max(images, axis=(1, 2, 3), keepdims=True) - low
        images = tf.math.divide_no_nan(images - low, extent)
        for layer in shade:
            images = layer(images, training=True)
        images = _gamma_and_noise(images, generator)
        return {**data, "images": images * extent + low}

    return augment


def keep_middle(batch: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Cut the middle (h, w), or what there is of it, out of a batch (B, H, W, ...)."""
    area = tf.shape(batch)
    top = tf.maximum((area[1] - size[0]) // 2, 0)
    left = tf.maximum((area[2] - size[1]) // 2, 0)
    return batch[:, top : top + size[0], left : left + size[1]]


def _gamma_and_noise(images: tf.Tensor, generator: tf.random.Generator) -> tf.Tensor:
    """Keras has no layers for these that work inside `tf.data`; values are in [0, 1]."""
    area = tf.shape(images)
    one_each = (area[0], 1, 1, 1)
    gamma = tf.exp(generator.uniform(one_each, -0.4, 0.4))
    # Three times faster than a power with an exponent per image.
    images = tf.exp(gamma * tf.math.log(tf.maximum(images, _SMALLEST_RANGE)))
    deviation = generator.uniform(one_each, 0.0, 0.02)
    noise = deviation * generator.normal((area[0], area[1], area[2], 1))
    return tf.clip_by_value(images + noise, 0.0, 1.0)


def photo_augmentation(seed: int | None = None) -> Augmentation:
    """Make a random augmentation of photographs together with their label maps.

    Half of the images are mirrored left and right, with their maps. Only the images change in
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
    seed = random.randrange(SEEDS) if seed is None else seed
    layers = keras.layers
    flip = layers.RandomFlip("horizontal", seed=seed, dtype="float32")
    colors = [
        layers.RandomContrast(0.3, (0, 255), seed=seed + 1, dtype="float32"),
        layers.RandomBrightness(0.1, (0, 255), seed=seed + 2, dtype="float32"),
        layers.RandomSaturation((0.35, 0.65), (0, 255), seed=seed + 3, dtype="float32"),
    ]

    def augment(data: dict[str, Any]) -> dict[str, Any]:
        data = flip(dict(data), training=True)  # a copy: the layer writes into what it gets
        images = data["images"]
        for layer in colors:
            images = layer(images, training=True)
        return {**data, "images": tf.clip_by_value(images, 0.0, 255.0)}

    return augment
