"""Crops of labelled images as a `tf.data.Dataset`, wherever the images come from."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from keras_rpe.data.augmentation import default_augmentation, keep_middle
from keras_rpe.data.counted_dataset import counted_dataset
from keras_rpe.data.crop_arguments import SEEDS, Named
from keras_rpe.data.crop_options import Change, CropOptions
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_crops import LabelledImage, cut, draw_corner, relabel_pieces, rgb_float
from keras_rpe.data.label_maps import VOID
from keras_rpe.data.photo_augmentation import photo_augmentation

CACHE_BYTES = 2**30
"""How much decoded image data a data set keeps in memory; images beyond are read again."""

Batch = tuple[np.ndarray, np.ndarray, np.ndarray, str]
Item = TypeVar("Item", bound=Named)


def labelled_dataset(
    items: Sequence[Item],
    load: Callable[[Item], LabelledImage],
    options: CropOptions,
    classes: bool,
) -> tf.data.Dataset:
    """Make batches for `fit` of labelled images.

    Args:
        items: What there is to load, each with a name of its own.
        load: Reads one; its `ImageFileError` ends the data set with that sentence.
        options: How crops are made.
        classes: Whether labels are a dictionary of instances and classes, or instances alone.

    Returns:
        A dataset of float32 images (B, h, w, 3) and labels, of known length.
    """
    size, margin = options.size, options.margin
    seed = random.randrange(SEEDS) if options.seed is None else options.seed
    area = (None, None) if size is None else tuple(s + 2 * m for s, m in zip(size, margin))
    dataset = tf.data.Dataset.from_generator(
        _batches(items, load, options, seed),
        output_signature=(
            tf.TensorSpec((None, *area, 3), tf.float32),
            tf.TensorSpec((None, *area), tf.int32),
            tf.TensorSpec((None, None, 2), tf.int32),
            tf.TensorSpec((), tf.string),
        ),
    )
    change: Any = options.augment or None
    if options.augment is True:
        change = default_augmentation(seed, size)
    elif options.augment == "photo":
        change = photo_augmentation(seed)
    dataset = dataset.map(_finish(change, size, options.split_pieces, classes))
    length = math.ceil(len(items) * options.repeats / options.batch_size)
    return counted_dataset(dataset, length)


def _batches(
    items: Sequence[Item],
    load: Callable[[Item], LabelledImage],
    options: CropOptions,
    seed: int,
) -> Callable[[], Iterator[Batch]]:
    """Make the generator function of one dataset; it shares its images between epochs."""
    size, margin, zoom = options.size, options.margin, options.zoom
    cache: dict[str, LabelledImage] = {}
    held = 0
    epoch = 0

    def loaded(item: Item) -> LabelledImage:
        nonlocal held
        if item.name in cache:
            return cache[item.name]
        image = load(item)
        if held + image.nbytes <= CACHE_BYTES:
            cache[item.name] = image
            held += image.nbytes
        return image

    def generate() -> Iterator[Batch]:
        nonlocal epoch
        rng = np.random.default_rng([seed, epoch if options.shuffle else 0])
        epoch += 1
        order = np.tile(np.arange(len(items)), options.repeats)
        if options.shuffle:
            rng.shuffle(order)
        for start in range(0, len(order), options.batch_size):
            pixels, labels, meanings = [], [], []
            try:
                for index in order[start : start + options.batch_size]:
                    image = loaded(items[index])
                    whole = image.labels.shape
                    if size is None:
                        crop = cut(image, (0, 0), whole, margin)
                    else:
                        scale = 1 / math.exp(rng.uniform(*np.log(zoom)))
                        shown = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
                        crop = cut(image, draw_corner(image, shown, rng), size, margin, scale)
                    pixels.append(rgb_float(crop[0]))
                    labels.append(crop[1].astype(np.int32))
                    meanings.append(image.meaning)
            except (ImageFileError, OSError) as error:
                side = size or (1, 1)
                shape = (1, side[0] + 2 * margin[0], side[1] + 2 * margin[1])
                nothing = np.zeros(shape, np.int32), np.zeros((1, 0, 2), np.int32)
                yield np.zeros((*shape, 3), np.float32), *nothing, str(error)
                return
            yield np.stack(pixels), np.stack(labels), _stacked(meanings), ""

    return generate


def _stacked(meanings: list[np.ndarray | None]) -> np.ndarray:
    """The tables of a batch, made equally long by rows of void."""
    tables = [np.zeros((0, 2), np.int32) if one is None else one for one in meanings]
    stacked = np.full((len(tables), max(map(len, tables)), 2), VOID, np.int32)
    for row, table in zip(stacked, tables):
        row[: len(table)] = table
    return stacked


def _finish(
    change: Change | None, size: tuple[int, int] | None, split_pieces: bool, classes: bool
) -> Callable[..., tuple[tf.Tensor, Any]]:
    """Make the map that augments a batch, keeps the middle, and numbers the instances anew."""

    def read(labels: np.ndarray, meanings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        instances, kinds = labels, np.zeros_like(labels)
        if meanings.shape[1]:
            # Numbers that an augmentation made up count as void.
            known = (labels >= 0) & (labels < meanings.shape[1])
            labels = np.where(known, labels, meanings.shape[1] - 1)
            pairs = np.stack([table[one] for table, one in zip(meanings, labels)])
            pairs = np.where(known[..., None], pairs, VOID)
            instances, kinds = pairs[..., 0], pairs[..., 1]
        number = relabel_pieces if split_pieces else _without_gaps
        return np.stack([_numbered(one, number) for one in instances]), kinds.astype(np.int32)

    @tf.autograph.experimental.do_not_convert
    def finish(
        images: tf.Tensor, labels: tf.Tensor, meanings: tf.Tensor, problem: tf.Tensor
    ) -> tuple[tf.Tensor, Any]:
        # An exception inside the generator would show its whole traceback; this shows a sentence.
        sound = tf.debugging.Assert(tf.equal(problem, ""), [problem])
        with tf.control_dependencies([sound]):
            images = tf.identity(images)
        if change is not None:
            masks = tf.cast(labels, tf.float32)[..., None]
            changed = change({"images": images, "segmentation_masks": masks})
            images, masks = _checked_change(changed, size)
            labels = tf.cast(tf.round(masks[..., 0]), tf.int32)
        if size is not None:
            images, labels = keep_middle(images, size), keep_middle(labels, size)
        both = tf.numpy_function(read, [labels, meanings], (tf.int32, tf.int32), stateful=False)
        side = size or (None, None)
        instances, kinds = (tf.ensure_shape(one, (None, *side)) for one in both)
        images = tf.ensure_shape(images, (None, *side, 3))
        return images, {"instances": instances, "classes": kinds} if classes else instances

    return finish


def _numbered(instances: np.ndarray, number: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    void = instances == VOID
    numbered = number(np.where(void, 0, instances))
    return np.where(void, VOID, numbered).astype(np.int32)


def _without_gaps(instances: np.ndarray) -> np.ndarray:
    ids, inverse = np.unique(instances, return_inverse=True)
    return inverse.reshape(instances.shape) + int(ids[0] != 0)


def _checked_change(changed: Any, size: tuple[int, int] | None) -> tuple[tf.Tensor, tf.Tensor]:
    try:
        images, masks = changed["images"], changed["segmentation_masks"]
    except (TypeError, KeyError, IndexError):
        raise ValueError(
            "augment needs to return a dictionary of images and segmentation_masks. "
            f"Received: {type(changed).__name__}"
        ) from None
    sides = zip(size or (1, 1), images.shape[1:3], masks.shape[1:3])
    if any(one is not None and one < side for side, *given in sides for one in given):
        raise ValueError(
            "augment needs to return images and segmentation_masks no smaller than crop_size. "
            f"Received: images of shape {images.shape}, segmentation_masks of shape {masks.shape}"
        )
    return tf.cast(images, tf.float32), tf.cast(masks, tf.float32)
