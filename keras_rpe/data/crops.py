"""Random crops of labelled images as a `tf.data.Dataset`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy import ndimage
from skimage.measure import label

from keras_rpe.arguments import check_choice, check_integer
from keras_rpe.data.augmentation import (
    SEEDS,
    Augmentation,
    default_augmentation,
    keep_middle,
    photo_augmentation,
)
from keras_rpe.data.images import ImageFileError, LabelFolderError, raise_problems
from keras_rpe.data.labels import VOID, pair_codes, unique_codes

CACHE_BYTES = 2**30
"""How much decoded data a dataset keeps in memory; images beyond are read again."""

_LARGEST_SIDE = 2**14
_NEAR_INSTANCE = 0.9
_JITTER = 0.25


class LabelledImage(NamedTuple):
    """An image in memory with its instances."""

    image: np.ndarray  # (H, W), (H, W, 3) or (H, W, 4) as stored
    labels: np.ndarray  # (H, W), ids from 1 without gaps, in the smallest type that holds them
    boxes: list[tuple[slice, slice]]  # the bounding box of each id
    # int32 (K, 2), the instance and the class that each number in `labels` stands for, the
    # background first, then objects, classes without one, and void last; None where the numbers
    # are instances.
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
    image: np.ndarray, instances: np.ndarray, classes: np.ndarray | None = None
) -> LabelledImage:
    """Prepare an image and its instance map, or its maps of instances and classes, for cropping."""
    meaning = None
    if classes is None:
        labels = _without_gaps(instances)
        objects = highest = int(labels.max())
    else:
        codes, pairs, _ = pair_codes(instances, classes)
        kinds = np.where(pairs[:, 0] > 0, 1, np.where(pairs[:, 1] > 0, 2, 0))
        kinds[(pairs == VOID).any(axis=1)] = 3
        objects = int((kinds == 1).sum())
        order = np.argsort(kinds, kind="stable")
        table = [[0, 0], *pairs[order][(kinds[order] == 1) | (kinds[order] == 2)], [VOID, VOID]]
        meaning, highest = np.array(table, np.int32), len(table) - 1
        # The background is row 0 and void the last row, whether or not they occur.
        number = np.empty(len(pairs), np.int64)
        number[order] = np.cumsum(kinds[order] > 0)
        number[kinds == 3] = highest
        labels = number[codes]
    labels = labels.astype(np.uint16 if highest < 2**16 else np.int32)
    boxes = ndimage.find_objects(labels, objects) if objects else []  # 0 would mean no limit
    return LabelledImage(image, labels, boxes, meaning)


def _without_gaps(labels: np.ndarray) -> np.ndarray:
    codes, ids, _ = unique_codes(labels)
    return codes + int(ids[0] != 0)


def relabel_pieces(labels: np.ndarray) -> np.ndarray:
    """Give every connected piece of an id (eight neighbors) an id of its own, from 1."""
    return label(labels, background=0, connectivity=2).astype(np.int32)


def draw_corner(
    shape: tuple[int, ...],
    size: tuple[int, int],
    rng: np.random.Generator,
    focus: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Draw the first row and column of a crop that lies inside the image where it fits.

    With a pixel to focus on, the crop lies around it, shifted by up to a quarter of its size.
    Where the image is smaller than the crop, it lies anywhere inside the crop, and the corner is
    negative.
    """
    corner = []
    for axis in (0, 1):
        low, high = sorted((0, shape[axis] - size[axis]))
        if focus is None or low < 0:
            corner.append(int(rng.integers(low, high + 1)))
        else:
            shift = rng.uniform(0.5 - _JITTER, 0.5 + _JITTER) * size[axis]
            corner.append(int(np.clip(focus[axis] - round(shift), low, high)))
    return corner[0], corner[1]


def draw_focus(item: LabelledImage, rng: np.random.Generator) -> tuple[int, int] | None:
    """Draw a random pixel of a random instance, in nine of ten cases."""
    if not item.boxes or rng.random() >= _NEAR_INSTANCE:
        return None
    chosen = int(rng.integers(len(item.boxes)))
    rows, columns = item.boxes[chosen]
    pixels = np.flatnonzero(item.labels[rows, columns] == chosen + 1)
    row, column = divmod(int(rng.choice(pixels)), columns.stop - columns.start)
    return rows.start + row, columns.start + column


def cut(
    item: LabelledImage,
    corner: tuple[int, int],
    size: tuple[int, int],
    margin: tuple[int, int],
    scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop of a size with a margin around it.

    Outside an image that is as large as the crop, the margin goes on by reflection, of the
    image and the labels alike; an image smaller than the crop is continued by its edge pixels,
    with background as labels, or void where there are classes. `scale` is the number of pixels of
    the image, along a side, that a pixel of the crop stands for: below 1 the crop is enlarged.
    Pixels are interpolated linearly then, labels taken from the nearest.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.crops import cut, labelled_image
        >>> item = labelled_image(np.arange(64).reshape(8, 8), np.ones((8, 8), int))
        >>> cut(item, (0, 0), (2, 2), (0, 1))[0].tolist()
        [[1, 0, 1, 2], [9, 8, 9, 10]]
    """
    rows, columns = map(_sampled, item.labels.shape, corner, size, margin, (scale, scale))
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
    """What a crop takes of an axis of the image, one entry for each pixel of the crop."""

    below: np.ndarray  # the pixel before the place
    above: np.ndarray  # the pixel after it
    share: np.ndarray  # how much of the value is that of the pixel after it, in [0, 1)
    nearest: np.ndarray  # the pixel at the place
    known: np.ndarray  # whether the place has labels


def _sampled(extent: int, corner: int, size: int, margin: int, scale: float) -> _Sampled:
    # The centers of the crop's pixels, in pixels of the image.
    place = corner + (np.arange(-margin, size + margin) + 0.5) * scale - 0.5
    below, nearest = np.floor(place).astype(int), np.floor(place + 0.5).astype(int)
    reflects = extent >= round(size * scale)
    known = (nearest >= 0) & (nearest < extent) | reflects
    period = max(2 * (extent - 1), 1)

    def inside(index: np.ndarray) -> np.ndarray:
        if reflects:
            index = np.abs((index + extent - 1) % period - (extent - 1))
        return np.clip(index, 0, extent - 1)

    share = (place - below).astype(np.float32)
    return _Sampled(inside(below), inside(below + 1), share, inside(nearest), known)


def chosen_pairs(pairs: list[Any], names: Sequence[str] | None) -> list[Any]:
    """Keep the pairs of some names, or all where `names` is `None`."""
    if names is None:
        return pairs
    if isinstance(names, str) or not names:
        raise ValueError(f"`names` must be a list of at least one name. Received: names={names!r}")
    missing = sorted(set(names) - {pair.name for pair in pairs})
    if missing:
        raise LabelFolderError(
            f"names has {len(missing)} without an image, such as {missing[0]!r}."
        )
    return [pair for pair in pairs if pair.name in set(names)]


@dataclass(frozen=True)
class CropOptions:
    """The arguments that datasets of crops share, checked; `label_folder` describes them.

    The defaults are those for photographs of objects: `pascal_voc`, `coco_instances` and
    `coco_panoptic`.
    """

    crop_size: int | tuple[int, int] | None = 320
    batch_size: int = 8
    shuffle: bool = True
    augment: bool | str | Augmentation = "photo"
    zoom: tuple[float, float] = (0.7, 1.5)
    repeats: int = 1
    seed: int | None = None
    split_pieces: bool = False

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_integer("batch_size", self.batch_size)
        check_integer("repeats", self.repeats)
        if self.seed is not None:
            check_integer("seed", self.seed, 0, SEEDS - 1)
        zoom = self.zoom if isinstance(self.zoom, (tuple, list)) else ()
        if not (len(zoom) == 2 and 0.1 <= zoom[0] <= zoom[1] <= 10):
            raise ValueError(
                f"`zoom` must be two factors in order, from 0.1 to 10. Received: zoom={self.zoom!r}"
            )
        if not (
            callable(self.augment) or isinstance(self.augment, bool) or self.augment == "photo"
        ):
            raise ValueError(
                '`augment` must be True, False, "photo", or a layer or function on a dictionary of '
                f"images and segmentation_masks. Received: augment={self.augment!r}"
            )
        check_choice("split_pieces", self.split_pieces, (True, False))
        if self.size is None and self.batch_size != 1:
            raise ValueError(
                "`batch_size` must be 1 with crop_size=None, because whole images differ in size. "
                f"Received: batch_size={self.batch_size}"
            )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the crops; `None` for whole images."""
        if self.crop_size is None:
            return None
        square = not isinstance(self.crop_size, (tuple, list))
        sides: Any = (self.crop_size, self.crop_size) if square else self.crop_size
        if len(sides) != 2:
            raise ValueError(
                "`crop_size` must be an integer, a pair (height, width), or None. "
                f"Received: crop_size={self.crop_size!r}"
            )
        height, width = (check_integer("crop_size", side, 1, _LARGEST_SIDE) for side in sides)
        return height, width

    @property
    def margin(self) -> tuple[int, int]:
        """Rows above and below, and columns left and right, that crops have at first."""
        size = self.size
        if self.augment in (False, "photo") or size is None:
            return 0, 0
        # A crop turned by any angle reaches as far as its diagonal.
        reach = math.hypot(*size) / 2
        return math.ceil(reach - size[0] / 2), math.ceil(reach - size[1] / 2)


def crop_batches(
    items: Sequence[Any],
    load: Callable[[Any], Any],
    crop: Callable[[Any, np.random.Generator], tuple[np.ndarray, ...]],
    specs: Sequence[tf.TensorSpec],
    options: CropOptions,
    seed: int,
    finish: Callable[..., Any] | None = None,
    load_first: bool = False,
) -> tf.data.Dataset:
    """Make batches of crops of items, each of which has a name of its own.

    Args:
        items: What there is to load.
        load: Reads one, as something that has `nbytes`; an `ImageFileError` that it raises ends
            the dataset with that sentence.
        crop: Cuts arrays, without the axis of the batch, out of what was loaded.
        specs: Shape and type of these arrays, with the axis of the batch.
        options: Batch size, order and number of crops.
        seed: Where the random numbers start.
        finish: Turns a batch of the arrays into what the dataset gives.
        load_first: Whether all items are loaded before anything else, to find those that cannot be.
    """
    cache: dict[str, Any] = {}
    held = epoch = 0

    def loaded(item: Any) -> Any:
        nonlocal held
        if item.name in cache:
            return cache[item.name]
        found = load(item)
        if held + found.nbytes <= CACHE_BYTES:
            cache[item.name] = found
            held += found.nbytes
        return found

    def problem(item: Any) -> str | None:
        try:
            loaded(item)
        except (ImageFileError, OSError) as error:
            return str(error).removesuffix(".")
        return None

    if load_first:
        raise_problems(map(problem, items), "images")

    def generate() -> Iterator[tuple[Any, ...]]:
        nonlocal epoch
        rng = np.random.default_rng([seed, epoch if options.shuffle else 0])
        epoch += 1
        order = np.tile(np.arange(len(items)), options.repeats)
        if options.shuffle:
            rng.shuffle(order)
        for start in range(0, len(order), options.batch_size):
            chosen = order[start : start + options.batch_size]
            try:
                crops = [crop(loaded(items[index]), rng) for index in chosen]
            except (ImageFileError, OSError) as error:
                yield (
                    *(np.zeros([n or 1 for n in s.shape], s.dtype.name) for s in specs),
                    str(error),
                )
                return
            yield *map(_stacked, zip(*crops)), ""

    @tf.autograph.experimental.do_not_convert
    def checked(*batch: tf.Tensor) -> Any:
        # An exception inside the generator would show its whole traceback; this shows a sentence.
        *arrays, problem = batch
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(problem, ""), [problem])]):
            arrays = [tf.identity(array) for array in arrays]
        return tuple(arrays) if finish is None else finish(*arrays)

    signature = (*specs, tf.TensorSpec((), tf.string))
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature).map(checked)
    return counted_dataset(dataset, math.ceil(len(items) * options.repeats / options.batch_size))


def _stacked(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """Stack arrays, of which tables of two columns may differ in length: rows of void follow."""
    longest = max(map(len, arrays))
    if any(len(one) < longest for one in arrays):
        rows = [((0, longest - len(one)), (0, 0)) for one in arrays]
        arrays = tuple(map(lambda a, b: np.pad(a, b, constant_values=VOID), arrays, rows))
    return np.stack(arrays)


def counted_dataset(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Give a dataset a known length, and two batches that are ready before they are asked for.

    Nothing in it is left to tune, so that TensorFlow's tuner is turned off: its thread sleeps for
    up to a minute, and an iterator that ends while it does waits for it, at the end of an epoch.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(2)
    return dataset.with_options(options)


def labelled_dataset(
    items: Sequence[Any],
    load: Callable[[Any], tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    options: CropOptions,
    classes: bool = True,
) -> tf.data.Dataset:
    """Make batches for `fit`: float32 images (B, h, w, 3) and their labels.

    `load` reads the image, its map of instances, and that of classes or `None`, of an item, which
    has a `name` of its own. With `classes`, labels are a dictionary of instances and classes.
    """
    size, margin = options.size, options.margin
    seed = random.randrange(SEEDS) if options.seed is None else int(options.seed)
    area = (None, None) if size is None else tuple(s + 2 * m for s, m in zip(size, margin))
    zooms = size is not None and options.augment in (True, "photo")
    zoom = np.log(options.zoom if zooms else (1.0, 1.0))

    def crop(item: LabelledImage, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        if size is None:
            pixels, labels = cut(item, (0, 0), item.labels.shape, margin)
        else:
            scale = 1 / math.exp(rng.uniform(*zoom))
            shown = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
            corner = draw_corner(item.labels.shape, shown, rng, draw_focus(item, rng))
            pixels, labels = cut(item, corner, size, margin, scale)
        meaning = np.zeros((0, 2), np.int32) if item.meaning is None else item.meaning
        return rgb_float(pixels), labels.astype(np.int32), meaning

    specs = (
        tf.TensorSpec((None, *area, 3), tf.float32),
        tf.TensorSpec((None, *area), tf.int32),
        tf.TensorSpec((None, None, 2), tf.int32),
    )
    change: Any = options.augment or None
    if options.augment is True:
        change = default_augmentation(seed, size)
    elif options.augment == "photo":
        change = photo_augmentation(seed)
    finish = _finish(change, size, options.split_pieces, classes)
    return crop_batches(
        items, lambda item: labelled_image(*load(item)), crop, specs, options, seed, finish
    )


def rgb_float(image: np.ndarray) -> np.ndarray:
    """Turn (H, W), (H, W, 3) or (H, W, 4) into float32 (H, W, 3): gray thrice, no alpha."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image[..., :3], dtype=np.float32)


def _finish(
    change: Augmentation | None, size: tuple[int, int] | None, split_pieces: bool, classes: bool
) -> Callable[..., tuple[tf.Tensor, Any]]:
    """Make the map that augments a batch, keeps the middle, and numbers the instances anew."""
    number = relabel_pieces if split_pieces else _without_gaps

    def numbered(instances: np.ndarray) -> np.ndarray:
        void = instances == VOID
        return np.where(void, VOID, number(np.where(void, 0, instances))).astype(np.int32)

    def read(labels: np.ndarray, meanings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        instances, kinds = labels, np.zeros_like(labels)
        if meanings.shape[1]:
            # Numbers that an augmentation made up count as void.
            known = (labels >= 0) & (labels < meanings.shape[1])
            labels = np.where(known, labels, meanings.shape[1] - 1)
            pairs = np.stack([table[one] for table, one in zip(meanings, labels)])
            pairs = np.where(known[..., None], pairs, VOID)
            instances, kinds = pairs[..., 0], pairs[..., 1]
        return np.stack([numbered(one) for one in instances]), kinds.astype(np.int32)

    @tf.autograph.experimental.do_not_convert
    def finish(images: tf.Tensor, labels: tf.Tensor, meanings: tf.Tensor) -> tuple[tf.Tensor, Any]:
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


def _checked_change(changed: Any, size: tuple[int, int] | None) -> tuple[tf.Tensor, tf.Tensor]:
    try:
        images, masks = changed["images"], changed["segmentation_masks"]
    except (TypeError, KeyError, IndexError):
        raise ValueError(
            "`augment` must return a dictionary of images and segmentation_masks. "
            f"Received: {type(changed).__name__}"
        ) from None
    sides = zip(size or (1, 1), images.shape[1:3], masks.shape[1:3])
    if any(one is not None and one < side for side, *given in sides for one in given):
        raise ValueError(
            "`augment` must return images and segmentation_masks no smaller than crop_size. "
            f"Received: images of shape {images.shape}, segmentation_masks of shape {masks.shape}"
        )
    return tf.cast(images, tf.float32), tf.cast(masks, tf.float32)
