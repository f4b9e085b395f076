"""Random crops of labelled images as a `tf.data.Dataset`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage
from skimage.measure import label

from keras_rpe.data.images import ImageFileError, LabelFolderError
from keras_rpe.data.labels import VOID, pair_codes

_NEAR_INSTANCE = 0.9
_JITTER = 0.25
_COUNTABLE = 2**22


class LabelledImage(NamedTuple):
    """An image in memory with its instances.

    Attributes:
        image: (H, W), (H, W, 3) or (H, W, 4) as stored.
        labels: (H, W), ids from 1 without gaps, in the smallest type that holds them.
        boxes: the bounding box of each id, as a pair of slices.
        meaning: int32 (K, 2), the instance and the class that each number in `labels` stands for,
            the background first, then objects, classes without one, and void last; None where
            they are the instances.
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: list[tuple[slice, slice]]
    meaning: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """The memory taken, in bytes."""
        return self.image.nbytes + self.labels.nbytes

    @property
    def outside(self) -> int:
        """The number in `labels` of what lies beyond the image: void where that is known."""
        return 0 if self.meaning is None else len(self.meaning) - 1


def labelled_image(
    image: np.ndarray, labels: np.ndarray, classes: np.ndarray | None = None
) -> LabelledImage:
    """Prepare an image and its instance map, or its maps of instances and classes, for cropping.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.crops import labelled_image
    >>> item = labelled_image(np.zeros((8, 8)), np.diag([0, 9, 9, 0, 0, 0, 0, 5]))
    >>> item.labels.diagonal().tolist(), len(item.boxes)
    ([0, 2, 2, 0, 0, 0, 0, 1], 2)
    """
    if classes is not None:
        return _classed_image(image, labels, classes)
    highest = int(labels.max())
    if highest < _COUNTABLE:  # counting is many times faster than the sort inside np.unique
        present = np.bincount(labels.ravel(), minlength=1) > 0
        present[0] = False
        compact = np.where(present, np.cumsum(present), 0)[labels]
    else:
        ids, compact = np.unique(labels, return_inverse=True)
        compact = compact.reshape(labels.shape) + (0 if ids[0] == 0 else 1)
    compact = compact.astype(np.uint16 if compact.max() < 2**16 else np.int32)
    return LabelledImage(image, compact, _boxes(compact, int(compact.max())))


def _classed_image(image: np.ndarray, instances: np.ndarray, classes: np.ndarray) -> LabelledImage:
    codes, pairs, _ = pair_codes(instances, classes)
    kinds = np.where(pairs[:, 0] > 0, 1, np.where(pairs[:, 1] > 0, 2, 0))
    kinds[(pairs == VOID).any(axis=1)] = 3
    order = np.argsort(kinds, kind="stable")
    table = [[0, 0], *pairs[order][(kinds[order] == 1) | (kinds[order] == 2)], [VOID, VOID]]
    # The background is row 0 and void the last row, whether or not they occur.
    number = np.empty(len(pairs), np.int64)
    number[order] = np.cumsum(kinds[order] > 0)
    number[kinds == 3] = len(table) - 1
    compact = number[codes].astype(np.uint16 if len(table) <= 2**16 else np.int32)
    boxes = _boxes(compact, int((kinds == 1).sum()))
    return LabelledImage(image, compact, boxes, np.array(table, np.int32))


def _boxes(compact: np.ndarray, count: int) -> list[tuple[slice, slice]]:
    if count == 0:  # the function would take it for no limit
        return []
    return [(box[0], box[1]) for box in ndimage.find_objects(compact, count)]


def rgb_float(image: np.ndarray) -> np.ndarray:
    """Turn (H, W), (H, W, 3) or (H, W, 4) into float32 (H, W, 3): gray thrice, no alpha.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.crops import rgb_float
    >>> rgb_float(np.full((2, 2), 7, "uint8"))[0, 0].tolist()
    [7.0, 7.0, 7.0]
    """
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image[..., :3], dtype=np.float32)


def relabel_pieces(labels: np.ndarray) -> np.ndarray:
    """Give every connected piece of an id (eight neighbours) an id of its own, from 1.

    Args:
        labels: integers (H, W), 0 is background.

    Returns:
        int32 (H, W).

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.crops import relabel_pieces
    >>> relabel_pieces(np.array([[9, 0, 9, 4]])).tolist()
    [[1, 0, 2, 3]]
    """
    return label(labels, background=0, connectivity=2).astype(np.int32)


def draw_corner(
    item: LabelledImage, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the first row and column of a crop that lies inside the image where it fits.

    Nine crops of ten lie around a random pixel of a random instance, shifted by up to a quarter
    of the crop; the others lie anywhere. Where the image is smaller than the crop, it lies
    anywhere inside the crop, and the corner is negative.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.crops import draw_corner, labelled_image
    >>> item = labelled_image(np.zeros((20, 20)), np.zeros((20, 20), int))
    >>> row, column = draw_corner(item, (8, 8), np.random.default_rng(0))
    >>> 0 <= row <= 12, 0 <= column <= 12
    (True, True)
    """
    shape = item.labels.shape
    focus = None
    if item.boxes and rng.random() < _NEAR_INSTANCE:
        chosen = int(rng.integers(len(item.boxes)))
        box = item.boxes[chosen]
        pixels = np.flatnonzero(item.labels[box] == chosen + 1)
        width = box[1].stop - box[1].start
        row, column = divmod(int(rng.choice(pixels)), width)
        focus = (box[0].start + row, box[1].start + column)
    corner = []
    for axis in (0, 1):
        low, high = sorted((0, shape[axis] - size[axis]))
        if focus is None or low < 0:
            corner.append(int(rng.integers(low, high + 1)))
            continue
        shift = rng.uniform(0.5 - _JITTER, 0.5 + _JITTER) * size[axis]
        corner.append(int(np.clip(focus[axis] - round(shift), low, high)))
    return corner[0], corner[1]


def cut(
    item: LabelledImage,
    corner: tuple[int, int],
    size: tuple[int, int],
    margin: tuple[int, int],
    scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop with a margin around it.

    Outside an image that is as large as the crop, the margin goes on by reflection, of the
    image and the labels alike; an image smaller than the crop is continued by its edge pixels,
    with background as labels, or void where there are classes.

    Args:
        item: the image with its instance map.
        corner: the first row and column of the crop, without the margin.
        size: height and width of the crop, without the margin.
        margin: rows above and below, and columns left and right of the crop.
        scale: pixels of the image, along a side, that a pixel of the crop stands for: below 1 the
            crop is enlarged. Pixels are interpolated linearly then, labels taken from the nearest.

    Returns:
        The pixels, as stored or float32 where they are interpolated, and the labels, both of
        `size` plus twice the `margin`.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data.crops import cut, labelled_image
    >>> item = labelled_image(np.arange(64).reshape(8, 8), np.ones((8, 8), int))
    >>> pixels, labels = cut(item, (0, 0), (2, 2), (0, 1))
    >>> pixels.tolist(), labels.shape
    ([[1, 0, 1, 2], [9, 8, 9, 10]], (2, 4))
    >>> cut(item, (2, 2), (1, 4), (0, 0), scale=0.5)[0].tolist()
    [[15.75, 16.25, 16.75, 17.25]]
    """
    rows, columns = (
        _sampled(item.labels.shape[axis], corner[axis], size[axis], margin[axis], scale)
        for axis in (0, 1)
    )
    known = rows.known[:, None] & columns.known
    labels = np.where(known, item.labels[rows.nearest][:, columns.nearest], item.outside)
    if scale == 1.0:
        return item.image[rows.nearest][:, columns.nearest], labels
    channels = (1,) * (item.image.ndim - 2)
    down, right = rows.share.reshape(-1, 1, *channels), columns.share.reshape(-1, *channels)
    upper, lower = item.image[rows.below], item.image[rows.above]

    def column(index: np.ndarray) -> np.ndarray:
        return upper[:, index] * (1 - down) + lower[:, index] * down

    return column(columns.below) * (1 - right) + column(columns.above) * right, labels


class _Sampled(NamedTuple):
    """What a crop takes of an axis of the image, one entry a pixel of the crop.

    Attributes:
        below: the pixel before the place.
        above: the pixel after it.
        share: how much of the value is that of the pixel after it, in [0, 1).
        nearest: the pixel at the place.
        known: whether the place has labels.
    """

    below: np.ndarray
    above: np.ndarray
    share: np.ndarray
    nearest: np.ndarray
    known: np.ndarray


def _sampled(extent: int, corner: int, size: int, margin: int, scale: float) -> _Sampled:
    # The middles of the crop's pixels, in pixels of the image.
    place = corner + (np.arange(-margin, size + margin) + 0.5) * scale - 0.5
    below, nearest = np.floor(place).astype(int), np.floor(place + 0.5).astype(int)
    known = (nearest >= 0) & (nearest < extent)
    reflects = extent >= round(size * scale)
    period = max(2 * (extent - 1), 1)

    def inside(index: np.ndarray) -> np.ndarray:
        if reflects:
            index = np.abs((index + extent - 1) % period - (extent - 1))
        return np.clip(index, 0, extent - 1)

    share = (place - below).astype(np.float32)
    known = np.ones_like(known) if reflects else known
    return _Sampled(inside(below), inside(below + 1), share, inside(nearest), known)


_SMALLEST_RANGE = 1e-12


def default_augmentation(
    seed: int | None = None, crop_size: tuple[int, int] | None = None
) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """Make a random augmentation of images together with their instance maps.

    Both are turned by any angle and flipped; where they end, they are continued by reflection.
    The images alone change in contrast, brightness and gamma, are blurred now and then, and get a
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
    seed = random.randrange(2**31 - 16) if seed is None else seed
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

    def augment(data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
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
    """Cut the middle (h, w), or what there is of it, out of a batch (B, H, W, ...).

    Example:
    >>> import tensorflow as tf
    >>> from keras_rpe.data.crops import keep_middle
    >>> keep_middle(tf.reshape(tf.range(25), (1, 5, 5)), (1, 3)).numpy().tolist()
    [[[11, 12, 13]]]
    """
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


SEEDS = 2**31 - 16
"""Seeds lie below it; Keras' layers take a few above the one given."""


class Named(Protocol):
    """A pair of files of one name."""

    @property
    def name(self) -> str:
        """The name, without ending."""


Pair = TypeVar("Pair", bound=Named)


def check_crop_arguments(batch_size: Any, repeats: Any, zoom: Any, seed: Any) -> None:
    """Refuse what no data set of crops can work with.

    Args:
        batch_size: Crops per batch, a whole number from 1.
        repeats: Crops per image and epoch, a whole number from 1.
        zoom: Range of factors, two in order, from 0.1 to 10.
        seed: A whole number from 0 and below `SEEDS`, or `None`.

    Raises:
        ValueError: If one is not as above.
    """
    check_count("batch_size", batch_size)
    check_count("repeats", repeats)
    paired = isinstance(zoom, (tuple, list)) and len(zoom) == 2
    if not (paired and 0.1 <= zoom[0] <= zoom[1] <= 10):
        raise ValueError(
            f"zoom needs two factors in order, from 0.1 to 10. Received: zoom={zoom!r}"
        )
    check_seed(seed)


def check_count(argument: str, value: Any) -> None:
    """Refuse what is no whole number from 1.

    Args:
        argument: Its name.
        value: Its value.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{argument} needs a whole number from 1. Received: {argument}={value!r}")


def check_seed(seed: Any) -> None:
    """Refuse what is no seed of a data set.

    Args:
        seed: A whole number from 0 and below `SEEDS`, or `None`.

    Raises:
        ValueError: If it is not.
    """
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < SEEDS):
        raise ValueError(f"seed needs a whole number from 0 to {SEEDS - 1}. Received: seed={seed}")


def chosen_pairs(pairs: list[Pair], names: Sequence[str] | None) -> list[Pair]:
    """Keep the pairs of some names.

    Args:
        pairs: Pairs of files.
        names: Names without ending, at least one; `None`: all.

    Returns:
        Those pairs, in their order.

    Raises:
        ValueError: If `names` is no list of at least one name.
        LabelFolderError: If there is no pair of a name.
    """
    if names is None:
        return pairs
    if isinstance(names, str) or not names:
        raise ValueError(f"names needs a list of at least one name. Received: names={names!r}")
    wanted = set(names)
    missing = sorted(wanted - {pair.name for pair in pairs})
    if missing:
        raise LabelFolderError(
            f"names has {len(missing)} of which there is no image, such as {missing[0]!r}."
        )
    return [pair for pair in pairs if pair.name in wanted]


Change = Callable[[dict[str, Any]], dict[str, Any]]


class CropOptions(NamedTuple):
    """Checked arguments of a data set of crops; `crop_options` makes it.

    Attributes:
        size: Height and width of the crops; `None` for whole images.
        batch_size: Crops a batch.
        shuffle: Whether every epoch has another order and other crops.
        augment: True, False, "photo", or a function on a dictionary.
        zoom: Range of the factors by which crops are enlarged.
        repeats: Crops per image and epoch.
        seed: Seed; `None`: to be drawn.
        split_pieces: Whether each connected piece of an instance becomes one of its own.
    """

    size: tuple[int, int] | None
    batch_size: int
    shuffle: bool
    augment: bool | str | Change
    zoom: tuple[float, float]
    repeats: int
    seed: int | None
    split_pieces: bool

    @property
    def margin(self) -> tuple[int, int]:
        """Rows above and below, and columns left and right, that crops have at first."""
        if self.augment in (False, "photo") or self.size is None:
            return 0, 0
        # A crop turned by any angle reaches as far as its diagonal.
        reach = math.hypot(*self.size) / 2
        return math.ceil(reach - self.size[0] / 2), math.ceil(reach - self.size[1] / 2)


def crop_options(
    crop_size: Any,
    batch_size: Any,
    shuffle: bool,
    augment: Any,
    zoom: Any,
    repeats: Any,
    seed: Any,
    split_pieces: Any,
) -> CropOptions:
    """Check the arguments of a data set of crops, as `label_folder` tells them.

    Raises:
        ValueError: If one is not as told there.
    """
    size = _checked_size(crop_size, batch_size)
    check_crop_arguments(batch_size, repeats, zoom, seed)
    if not (isinstance(augment, bool) or augment == "photo" or callable(augment)):
        raise ValueError(
            'augment needs True, False, "photo", or a layer or function on a dictionary of images '
            f"and segmentation_masks. Received: augment={augment!r}"
        )
    if not isinstance(split_pieces, bool):
        raise ValueError(
            f"split_pieces needs True or False. Received: split_pieces={split_pieces!r}"
        )
    if callable(augment) or augment is False or size is None:
        zoom = (1.0, 1.0)
    return CropOptions(size, batch_size, shuffle, augment, tuple(zoom), repeats, seed, split_pieces)


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
    return size[0], size[1]


def counted_dataset(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Give a dataset a known length, and two batches that are ready before they are asked for.

    Nothing in it is left to tune, so that TensorFlow's tuner is turned off: its thread sleeps for
    up to a minute, and an iterator that ends while it does waits for it, at the end of an epoch.

    Args:
        dataset: Batches.
        length: Their number.

    Returns:
        The same batches.

    Example:
        >>> import tensorflow as tf
        >>> from keras_rpe.data.crops import counted_dataset
        >>> numbers = tf.data.Dataset.from_generator(lambda: iter(range(3)), tf.int32)
        >>> len(counted_dataset(numbers, 3))
        3
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(2)
    return dataset.with_options(options)


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
