"""Random crops of labelled images, in NumPy."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from scipy import ndimage
from skimage.measure import label

from keras_rpe.arguments import check_choice, check_integer, check_number
from keras_rpe.data.batches import Batch, batches
from keras_rpe.data.images import ImageFileError, raise_problems
from keras_rpe.data.labels import VOID, pair_codes, unique_codes

SEEDS = 2**31 - 16
"""Seeds lie below it."""

CACHE_BYTES = 2**30
"""How much decoded data a dataset keeps in memory; images beyond are read again."""

KINDS = ("photo", "microscopy")
"""Named augmentations, beside `True`."""

_LARGEST_SIDE = 2**14
_NEAR_INSTANCE = 0.9
_JITTER = 0.25
# Octaves around the wanted diameter: most crops show objects of about that size, and some the
# others that an estimate of the size must know.
_OCTAVES, _MOST_OCTAVES = 0.8, 2.0


class CropOptions(NamedTuple):
    """The arguments that datasets of crops share; `LabelledImages.crops` describes them."""

    crop_size: Any
    batch_size: int
    shuffle: bool
    augment: Any
    zoom: Any
    repeats: int
    seed: Any
    split_pieces: bool = False
    workers: int = 0
    diameter: float | None = None

    def checked(self) -> CropOptions:
        """Check them; `crop_size` becomes (height, width) or `None`, and a seed is drawn."""
        check_integer("batch_size", self.batch_size)
        check_integer("repeats", self.repeats)
        check_integer("workers", self.workers, 0, 1024)
        seed = random.randrange(SEEDS) if self.seed is None else self.seed
        zoom = self.zoom if isinstance(self.zoom, (tuple, list)) else ()
        if not (len(zoom) == 2 and 0.1 <= zoom[0] <= zoom[1] <= 10):
            raise ValueError(
                f"`zoom` must be two factors in order, from 0.1 to 10. Received: zoom={self.zoom!r}"
            )
        kind = self.augment
        if not (callable(kind) or isinstance(kind, bool) or kind in KINDS):
            raise ValueError(
                '`augment` must be True, False, "photo", "microscopy", or a layer or function on a '
                f"dictionary of images and segmentation_masks. Received: augment={self.augment!r}"
            )
        check_choice("split_pieces", self.split_pieces, (True, False))
        if self.diameter is not None:
            check_number("diameter", self.diameter)
        if self.crop_size is None and self.batch_size != 1:
            raise ValueError(
                "`batch_size` must be 1 with crop_size=None, because whole images differ in size. "
                f"Received: batch_size={self.batch_size}"
            )
        size = self.crop_size
        if size is not None:
            size = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
            if len(size) != 2:
                raise ValueError(
                    "`crop_size` must be an integer, a pair (height, width), or None. "
                    f"Received: crop_size={self.crop_size!r}"
                )
            size = tuple(check_integer("crop_size", side, 1, _LARGEST_SIDE) for side in size)
        return self._replace(crop_size=size, seed=check_integer("seed", seed, 0, SEEDS - 1))

    @property
    def margin(self) -> tuple[int, int]:
        """Rows above and below, and columns left and right, that a function of `augment` gets."""
        if not callable(self.augment) or self.crop_size is None:
            return 0, 0
        # A crop turned by any angle reaches as far as its diagonal.
        reach = math.hypot(*self.crop_size) / 2
        return math.ceil(reach - self.crop_size[0] / 2), math.ceil(reach - self.crop_size[1] / 2)


class LabelledImage(NamedTuple):
    """An image in memory with its instances."""

    image: np.ndarray  # (H, W), (H, W, 3) or (H, W, 4) as stored
    labels: np.ndarray  # (H, W), ids from 1 without gaps, in the smallest type that holds them
    boxes: list[tuple[slice, slice]]  # the bounding box of each id
    # int32 (K, 2), the instance and the class that each number in `labels` stands for, the
    # background first, then objects, classes without one, and void last; None where the numbers
    # are instances.
    meaning: np.ndarray | None = None
    diameter: float | None = None  # The median of √(4 area / π) over the objects

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
    areas = np.bincount(labels.ravel(), minlength=objects + 1)[1 : objects + 1]
    diameter = float(np.median(np.sqrt(areas * (4 / math.pi)))) if objects else None
    return LabelledImage(image, labels, boxes, meaning, diameter)


def _reduced(item: LabelledImage, factor: int) -> LabelledImage:
    """An image made smaller by a whole factor: means of blocks, and labels in their middle."""
    height, width = (side // factor * factor for side in item.labels.shape)
    blocks = item.image[:height, :width].astype(np.float32)
    blocks = blocks.reshape(height // factor, factor, width // factor, factor, *blocks.shape[2:])
    labels = item.labels[factor // 2 : height : factor, factor // 2 : width : factor]
    count = len(item.boxes)
    boxes = ndimage.find_objects(labels, count) if count else []
    return item._replace(image=blocks.mean(axis=(1, 3)), labels=labels, boxes=boxes)


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
    if item.boxes[chosen] is None:  # An object that is too small at the scale of the crop.
        return None
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
    """What pixels of a crop take of an axis of the image."""

    below: np.ndarray  # the pixel before the place
    above: np.ndarray  # the pixel after it
    share: np.ndarray  # how much of the value is that of the pixel after it, in [0, 1)
    nearest: np.ndarray  # the pixel at the place
    known: np.ndarray  # whether the place has labels


def _sampled(extent: int, corner: int, size: int, margin: int, scale: float) -> _Sampled:
    # The centers of the crop's pixels, in pixels of the image.
    place = corner + (np.arange(-margin, size + margin) + 0.5) * scale - 0.5
    return _placed(place, extent, size * scale)


def _placed(place: np.ndarray, extent: int, shown: float) -> _Sampled:
    """What is at some places along an axis, of which a crop shows so many pixels."""
    below, nearest = np.floor(place).astype(int), np.floor(place + 0.5).astype(int)
    reflects = extent >= round(shown)
    known = (nearest >= 0) & (nearest < extent) | reflects
    period = max(2 * (extent - 1), 1)

    def inside(index: np.ndarray) -> np.ndarray:
        if reflects:
            index = np.abs((index + extent - 1) % period - (extent - 1))
        return np.clip(index, 0, extent - 1)

    share = (place - below).astype(np.float32)
    return _Sampled(inside(below), inside(below + 1), share, inside(nearest), known)


def turned(
    item: LabelledImage,
    corner: tuple[int, int],
    size: tuple[int, int],
    angle: float,
    mirror: bool,
    scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop that is turned about its middle, and continued as in `cut`."""
    rows, columns = ((np.arange(side) - (side - 1) / 2) * scale for side in size)
    rows, columns = rows[:, None], columns * (-1 if mirror else 1)
    cosine, sine = math.cos(angle), math.sin(angle)
    places = (cosine * rows - sine * columns, sine * rows + cosine * columns)
    row, column = (
        _placed(place + first + side * scale / 2 - 0.5, extent, side * scale)
        for place, first, side, extent in zip(places, corner, size, item.labels.shape)
    )
    labels = np.where(
        row.known & column.known, item.labels[row.nearest, column.nearest], item.outside
    )
    channels = (1,) * (item.image.ndim - 2)
    down, right = (one.share.reshape(*size, *channels) for one in (row, column))
    image, below, above = item.image, row.below, row.above
    upper = image[below, column.below] * (1 - right) + image[below, column.above] * right
    lower = image[above, column.below] * (1 - right) + image[above, column.above] * right
    return upper * (1 - down) + lower * down, labels


# The lowest value that a power is taken of.
_SMALLEST = 1e-12


def _contrast_and_brightness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values in [0, 1]: contrast by up to 30 %, brightness by up to a tenth of the range."""
    mean = image.mean(axis=(0, 1))
    image = ((image - mean) * rng.uniform(0.7, 1.3) + mean).clip(0, 1)
    return (image + rng.uniform(-0.1, 0.1)).clip(0, 1)


def shaded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change float32 (h, w, 3) as lamps, lenses and cameras of microscopes do.

    Contrast, brightness and gamma change, half of the images are blurred, and all get a slight
    noise, the same in all channels. The lowest value, or 0 if that is lower, and the highest value
    stay the limits.
    """
    low = min(float(image.min()), 0.0)
    extent = float(image.max()) - low
    if extent == 0:
        return image
    image = _contrast_and_brightness((image - low) / extent, rng)
    if rng.random() < 0.5:
        deviation = max(rng.uniform(0, 1), 1e-3)
        side = np.exp(-0.5 / deviation**2)
        taps = np.array([side, 1.0, side]) / (1 + 2 * side)
        for axis in (0, 1):
            image = ndimage.correlate1d(image, taps, axis, mode="nearest")
    image = np.maximum(image, _SMALLEST) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    noise = rng.standard_normal((*image.shape[:2], 1), np.float32)
    image = (image + np.float32(rng.uniform(0, 0.02)) * noise).clip(0, 1)
    return (image * extent + low).astype(np.float32)


def as_elsewhere(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change float32 (h, w, 3) to what another laboratory might have taken.

    Stains absorb in other proportions, or the camera has no colors; gray images are of one color;
    some are inverted, lit unevenly, out of focus or noisy. The lowest value, or 0 if that is lower,
    and the highest value stay the limits.
    """
    low = min(float(image.min()), 0.0)
    extent = float(image.max()) - low
    if extent == 0:
        return image
    image = (image - low) / extent
    gains = np.exp(rng.normal(0, 0.25, 3)).astype(np.float32)
    if np.ptp(image, axis=-1).max() > 1 / 255:
        # Stains add up in the logarithm of the light (Beer and Lambert).
        mixed = np.eye(3) * gains + rng.normal(0, 0.08, (3, 3))
        depth = -np.log(np.maximum(image, 1 / 255))
        image = np.exp(-np.maximum(depth @ mixed.astype(np.float32), 0))
        if rng.random() < 0.15:
            image = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    elif rng.random() < 0.15:
        image = image * (gains / gains.max()) ** 4
    if rng.random() < 0.1:
        image = 1 - image
    if rng.random() < 0.3:
        rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in image.shape[:2])
        slopes = rng.uniform(-0.25, 0.25, 3).astype(np.float32)
        light = (
            slopes[0] * rows[:, None] + slopes[1] * columns + slopes[2] * rows[:, None] * columns
        )
        image = image + light[..., None] if rng.random() < 0.5 else image * (1 + light[..., None])
    if rng.random() < 0.25:
        image = ndimage.gaussian_filter(image, (*[rng.uniform(0.7, 2)] * 2, 0), truncate=3)
    if rng.random() < 0.25:
        noise = rng.standard_normal((*image.shape[:2], 1), np.float32)
        image = image + np.float32(rng.uniform(0.02, 0.08)) * noise
    return (image.clip(0, 1) * extent + low).astype(np.float32)


def recolored(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change contrast, brightness and saturation of a photograph, float32 (h, w, 3) in 0..255."""
    image = _contrast_and_brightness(image / 255, rng)
    value = image.max(axis=-1, keepdims=True)
    depth = value - image  # proportional to the saturation
    most = value / np.maximum(depth.max(axis=-1, keepdims=True), _SMALLEST)
    factor = np.minimum(np.exp(rng.uniform(-0.62, 0.62)), most)
    return (255 * (value - factor * depth)).clip(0, 255).astype(np.float32)


def random_crop(
    item: LabelledImage, options: CropOptions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a crop, with its margin: float32 pixels (h, w, 3) and int32 labels (h, w)."""
    size, augment = options.crop_size, options.augment
    corner, scale = (0, 0), 1.0
    if size is None:
        size = item.labels.shape
    else:
        if augment is True or augment in KINDS:
            scale = math.exp(-rng.uniform(*np.log(options.zoom)))
        if options.diameter and item.diameter:
            octaves = np.clip(rng.normal(0, _OCTAVES), -_MOST_OCTAVES, _MOST_OCTAVES)
            scale = 2**-octaves * item.diameter / options.diameter
            # No crop shows much more than the image.
            scale = min(scale, max(1.0, 1.2 * min(item.labels.shape) / max(size)))
        if scale >= 2:
            item, scale = _reduced(item, int(scale)), scale / int(scale)
        shown = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        corner = draw_corner(item.labels.shape, shown, rng, draw_focus(item, rng))
    if augment in (True, "microscopy"):
        angle, mirror = rng.uniform(0, 2 * math.pi), bool(rng.random() < 0.5)
        pixels, labels = turned(item, corner, size, angle, mirror, scale)
        pixels = rgb_float(pixels)
        if augment == "microscopy":
            pixels = as_elsewhere(pixels, rng)
        return shaded(pixels, rng), labels.astype(np.int32)
    pixels, labels = cut(item, corner, size, options.margin, scale)
    if augment == "photo":
        if rng.random() < 0.5:
            pixels, labels = pixels[:, ::-1], labels[:, ::-1]
        return recolored(rgb_float(pixels), rng), labels.astype(np.int32)
    return rgb_float(pixels), labels.astype(np.int32)


def rgb_float(image: np.ndarray) -> np.ndarray:
    """Turn (H, W), (H, W, 3) or (H, W, 4) into float32 (H, W, 3): gray thrice, no alpha."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image[..., :3], dtype=np.float32)


def crop_batches(
    files: Mapping[str, Any],
    load: Callable[[Any], Any],
    crop: Callable[[Any, np.random.Generator], Any],
    finish: Callable[[list[Any]], Batch],
    specs: Any,
    options: CropOptions,
    load_first: bool = False,
) -> Any:
    """Make batches of what `crop` cuts out of what `load` reads, of each file, by their names.

    What is loaded has `nbytes`. `finish` makes a batch, like the nest `specs`, of what `crop` gave.
    With `load_first`, all are loaded before anything else, to find those that cannot be.
    """
    names = list(files)
    cache: dict[str, Any] = {}
    held = 0

    def loaded(name: str) -> Any:
        nonlocal held
        if name in cache:
            return cache[name]
        found = load(files[name])
        if held + found.nbytes <= CACHE_BYTES:
            cache[name] = found
            held += found.nbytes
        return found

    def problem(name: str) -> str | None:
        try:
            loaded(name)
        except (ImageFileError, OSError) as error:
            return str(error).removesuffix(".")
        return None

    if load_first:
        raise_problems(map(problem, names), "images")

    @functools.lru_cache(maxsize=2)  # An epoch may begin while the one before it ends.
    def order(epoch: int) -> np.ndarray:
        places = np.tile(np.arange(len(names)), options.repeats)
        if options.shuffle:
            np.random.default_rng([options.seed, epoch]).shuffle(places)
        return places

    def make(epoch: int, index: int) -> Batch:
        epoch = epoch if options.shuffle else 0
        chosen = order(epoch)[index * options.batch_size : (index + 1) * options.batch_size]
        # Each batch has its own random numbers, so that processes may make them in any order.
        rng = np.random.default_rng([options.seed, epoch, index])
        return finish([crop(loaded(names[number]), rng) for number in chosen])

    if callable(options.augment):
        make(0, 0)  # A function that returns something else is refused now.
    length = math.ceil(len(names) * options.repeats / options.batch_size)
    return batches(make, length, specs, options.workers)


def labelled_batches(
    files: Mapping[str, Any],
    load: Callable[[Any], LabelledImage],
    options: CropOptions,
    classes: bool,
) -> Any:
    """Make batches for `fit`: augmented images, and their instances, with classes or without."""
    size = options.crop_size

    def crop(item: LabelledImage, rng: np.random.Generator) -> tuple[Any, ...]:
        return *random_crop(item, options, rng), item.meaning

    def finish(crops: list[Any]) -> Batch:
        images, labels = (np.stack(arrays) for arrays in list(zip(*crops))[:2])
        if callable(options.augment):
            images, labels = _changed(options.augment, images, labels, size)
        number = relabel_pieces if options.split_pieces else _without_gaps
        pairs = [_read(one, meaning, number) for one, (*_, meaning) in zip(labels, crops)]
        instances, kinds = (np.stack(arrays) for arrays in zip(*pairs))
        return images, {"instances": instances, "classes": kinds} if classes else instances

    area = (None, *(size or (None, None)))
    maps = keras.KerasTensor(area, "int32")
    target = {"instances": maps, "classes": maps} if classes else maps
    specs = (keras.KerasTensor((*area, 3), "float32"), target)
    return crop_batches(files, load, crop, finish, specs, options)


def _read(
    labels: np.ndarray, meaning: np.ndarray | None, number: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Turn the labels of a crop and their meaning into instances and classes, int32."""
    instances, kinds = labels, np.zeros_like(labels)
    if meaning is not None:
        # Numbers that an augmentation made up count as void.
        known = (labels >= 0) & (labels < len(meaning))
        instances, kinds = np.moveaxis(meaning[np.where(known, labels, len(meaning) - 1)], -1, 0)
    void = instances == VOID
    numbered = number(np.where(void, 0, instances))
    return np.where(void, VOID, numbered).astype(np.int32), kinds.astype(np.int32)


def _changed(
    change: Callable[[dict[str, Any]], Any],
    images: np.ndarray,
    labels: np.ndarray,
    size: tuple[int, int] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Augment a batch by a layer or a function, check what it returns, and cut the middle."""
    masks = labels[..., None].astype(np.float32)
    changed = change({"images": images, "segmentation_masks": masks})
    try:
        images, masks = (
            keras.ops.convert_to_numpy(changed[key]) for key in ("images", "segmentation_masks")
        )
    except (TypeError, KeyError, IndexError):
        raise ValueError(
            "`augment` must return a dictionary of images and segmentation_masks. "
            f"Received: {type(changed).__name__}"
        ) from None
    sides = zip(size or (1, 1), images.shape[1:3], masks.shape[1:3])
    if any(one < side for side, *given in sides for one in given):
        raise ValueError(
            "`augment` must return images and segmentation_masks no smaller than crop_size. "
            f"Received: images of shape {images.shape}, segmentation_masks of shape {masks.shape}"
        )
    images, masks = (_middle(one, size or one.shape[1:3]) for one in (images, masks))
    return images.astype(np.float32), np.round(masks[..., 0]).astype(np.int32)


def _middle(batch: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = ((have - side) // 2 for have, side in zip(batch.shape[1:3], size))
    return batch[:, top : top + size[0], left : left + size[1]]
