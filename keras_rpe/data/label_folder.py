"""A folder of images and label images as a `tf.data.Dataset`."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_rpe.data.augmentation import default_augmentation, keep_middle
from keras_rpe.data.crop_arguments import SEEDS, check_crop_arguments, chosen_pairs
from keras_rpe.data.image_file import read_image, read_labels
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_crops import (
    LabelledImage,
    cut,
    draw_corner,
    labelled_image,
    relabel_pieces,
    rgb_float,
)
from keras_rpe.data.label_pairs import (
    LabelPair,
    check_label_pairs,
    find_label_pairs,
    split_pairs,
)

CACHE_BYTES = 2**30
"""How much decoded image data `label_folder` keeps in memory; images beyond are read again."""


Batch = tuple[np.ndarray, np.ndarray, str]


def label_folder(
    path: str | Path,
    *,
    images: str = "images/*",
    instances: str = "instances/*",
    crop_size: int | tuple[int, int] | None = 128,
    batch_size: int = 8,
    shuffle: bool = True,
    augment: bool | Callable[[dict[str, Any]], dict[str, Any]] = True,
    zoom: tuple[float, float] = (0.65, 1.5),
    repeats: int = 1,
    validation_split: float | None = None,
    subset: str | None = None,
    seed: int | None = None,
    names: Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Read a folder of images and instance label images as batches for `fit`.

    All files are checked before anything else. Every epoch takes `repeats` crops of every
    image: nine of ten around a random instance, the others anywhere. Images smaller than the
    crop are continued by their edge pixels, with background as labels. Gray images become three
    equal channels and alpha is dropped. Up to 1 GiB of decoded images stays in memory.

    After cropping and augmenting, every connected piece (eight neighbours) becomes an instance
    of its own, with ids from 1 without gaps: a crop can cut an instance in two. An instance
    that is meant to have pieces far apart, such as an object behind a pole, is split as well.

    Args:
        path: the folder.
        images: a glob inside the folder that the images match.
        instances: a glob inside the folder that the label images match; an image and its
            labels share their name without ending.
        crop_size: side of the square crops, or (height, width), or None for whole images at
            their own sizes, which needs `batch_size=1`.
        batch_size: crops per batch; the last batch of an epoch may be smaller.
        shuffle: new order and new crops in every epoch; False gives every epoch the same
            order and the same crops.
        augment: True for `default_augmentation`, or a Keras layer or function on a dictionary
            of float32 `images` (B, H, W, 3) and `segmentation_masks` (B, H, W, 1). It gets the
            crops with a margin, of which the middle is kept, so that turning finds real pixels.
        zoom: with `augment=True`, each crop is enlarged by a random factor from this range;
            factors below 1 reduce it and show more of the image. Whole images keep their sizes.
        repeats: crops per image and epoch.
        validation_split: the share of images for validation, chosen by name and `seed` alone.
        subset: "training" or "validation", together with `validation_split`.
        seed: the same seed gives the same batches; None draws one from Python's generator.
        names: only these images, by their names without ending.

    Returns:
        A dataset of float32 images (B, h, w, 3) in the files' own value range and int32
        instance maps (B, h, w), of known length.

    Raises:
        LabelFolderError: the folder has no usable pairs; the message lists every bad file.
        ValueError: an argument is not as above.

    Example:
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from keras_rpe.data import label_folder
    >>> import tempfile
    >>> from keras_rpe.data.image_file import write_image, write_labels
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
    size = _checked_size(crop_size, batch_size)
    check_crop_arguments(batch_size, repeats, zoom, seed)
    if not (isinstance(augment, bool) or callable(augment)):
        raise ValueError(
            "augment needs True, False or a layer or function on a dictionary of images and "
            f"segmentation_masks. Received: augment={augment!r}"
        )
    if (validation_split is None) != (subset is None) or subset not in (
        None,
        "training",
        "validation",
    ):
        raise ValueError(
            'subset needs "training" or "validation" together with validation_split, or neither '
            f"of the two. Received: subset={subset!r}, validation_split={validation_split}"
        )
    pairs = chosen_pairs(find_label_pairs(path, images, instances), names)
    check_label_pairs(pairs)
    if validation_split is not None:
        training, validation = split_pairs(pairs, validation_split, seed)
        pairs = training if subset == "training" else validation

    seed = random.randrange(SEEDS) if seed is None else seed
    margin = (0, 0)
    if augment is not False and size is not None:
        # A crop turned by any angle reaches as far as its diagonal.
        reach = math.hypot(*size) / 2
        margin = (math.ceil(reach - size[0] / 2), math.ceil(reach - size[1] / 2))
    zoom = zoom if augment is True and size is not None else (1.0, 1.0)
    source = _batches(pairs, size, margin, zoom, batch_size, shuffle, repeats, seed)
    area = (None, None) if size is None else tuple(s + 2 * m for s, m in zip(size, margin))
    dataset = tf.data.Dataset.from_generator(
        source,
        output_signature=(
            tf.TensorSpec((None, *area, 3), tf.float32),
            tf.TensorSpec((None, *area), tf.int32),
            tf.TensorSpec((), tf.string),
        ),
    )
    change = default_augmentation(seed, size) if augment is True else augment
    dataset = dataset.map(_finish(change or None, size))
    length = math.ceil(len(pairs) * repeats / batch_size)
    return dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(2)


def _checked_size(crop_size: Any, batch_size: int) -> tuple[int, int] | None:
    if crop_size is None:
        if batch_size != 1:
            raise ValueError(
                "batch_size needs to be 1 with crop_size=None, because whole images differ in "
                f"size. Received: batch_size={batch_size}"
            )
        return None
    size = tuple(crop_size) if isinstance(crop_size, (tuple, list)) else (crop_size, crop_size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in size)
    if len(size) != 2 or not whole or min(size) < 1:
        raise ValueError(
            "crop_size needs a whole number from 1, a pair (height, width) of them, or None. "
            f"Received: crop_size={crop_size!r}"
        )
    return size


def _batches(
    pairs: list[LabelPair],
    size: tuple[int, int] | None,
    margin: tuple[int, int],
    zoom: tuple[float, float],
    batch_size: int,
    shuffle: bool,
    repeats: int,
    seed: int,
) -> Callable[[], Iterator[Batch]]:
    """Make the generator function of one dataset; it shares its images between epochs."""
    cache: dict[str, LabelledImage] = {}
    held = 0
    epoch = 0

    def load(pair: LabelPair) -> LabelledImage:
        nonlocal held
        if pair.name in cache:
            return cache[pair.name]
        assert pair.image is not None and pair.instances is not None  # noqa: PT018
        image, labels = read_image(pair.image), read_labels(pair.instances)
        if labels.shape != image.shape[:2]:
            raise ImageFileError(f"{pair.instances} and its image no longer have one size.")
        item = labelled_image(image, labels)
        if held + item.nbytes <= CACHE_BYTES:
            cache[pair.name] = item
            held += item.nbytes
        return item

    def generate() -> Iterator[Batch]:
        nonlocal epoch
        rng = np.random.default_rng([seed, epoch if shuffle else 0])
        epoch += 1
        order = np.tile(np.arange(len(pairs)), repeats)
        if shuffle:
            rng.shuffle(order)
        for start in range(0, len(order), batch_size):
            pixels, labels = [], []
            try:
                for index in order[start : start + batch_size]:
                    item = load(pairs[index])
                    whole = item.labels.shape
                    if size is None:
                        crop = cut(item, (0, 0), whole, margin)
                    else:
                        scale = 1 / math.exp(rng.uniform(*np.log(zoom)))
                        shown = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
                        crop = cut(item, draw_corner(item, shown, rng), size, margin, scale)
                    pixels.append(rgb_float(crop[0]))
                    labels.append(crop[1].astype(np.int32))
            except (ImageFileError, OSError) as error:
                side = size or (1, 1)
                shape = (1, side[0] + 2 * margin[0], side[1] + 2 * margin[1])
                yield np.zeros((*shape, 3), np.float32), np.zeros(shape, np.int32), str(error)
                return
            yield np.stack(pixels), np.stack(labels), ""

    return generate


def _finish(
    change: Callable[[dict[str, Any]], dict[str, Any]] | None, size: tuple[int, int] | None
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Make the map that augments a batch, keeps the middle, and numbers the instances anew."""

    def relabel(labels: np.ndarray) -> np.ndarray:
        return np.stack([relabel_pieces(one) for one in labels])

    @tf.autograph.experimental.do_not_convert
    def finish(
        images: tf.Tensor, labels: tf.Tensor, problem: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
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
        labels = tf.numpy_function(relabel, [labels], tf.int32, stateful=False)
        side = size or (None, None)
        return (
            tf.ensure_shape(images, (None, *side, 3)),
            tf.ensure_shape(labels, (None, *side)),
        )

    return finish


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
