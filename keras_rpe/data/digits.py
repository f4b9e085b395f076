"""The scenes of the paper's tutorial: handwritten digits that cover each other."""

from __future__ import annotations

import io
import math
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_rpe.arguments import check_choice, check_integer, check_number
from keras_rpe.data.batches import Batch, batches
from keras_rpe.data.crops import SEEDS
from keras_rpe.data.images import ImageFileError

if TYPE_CHECKING:
    import tensorflow as tf

SPLITS = ("train", "test")
"""The parts of a set of digits, which have no image in common."""

HELD_OUT = 7
"""Of images without a split, each class gives every seventh to the test, which is MNIST's share."""

_MAX_BYTES = 512 * 2**20

CANVAS, DIGIT = 64, 28
"""Height and width of a scene, and of the image of one digit, in pixels."""

CORNERS = tuple((top, left) for top in (0, 17, 35) for left in (0, 17, 35))
"""Where digits stand: the top and left pixel of each of the nine places, which overlap."""

MIN_PIXELS = 10
"""A digit of which fewer pixels can be seen is left out of its scene."""

DIGIT_COLORS = (
    (0.310041, 0.220394, 1.0),
    (0.504913, 1.0, 0.205176),
    (0.496075, 0.901031, 1.0),
    (0.945989, 1.0, 0.350301),
    (1.0, 0.144983, 0.123730),
    (0.596246, 0.347203, 1.0),
    (0.918880, 1.0, 0.810023),
    (0.720304, 1.0, 0.597247),
    (0.477265, 1.0, 0.494467),
    (0.692008, 1.0, 0.704953),
)
"""Red, green and blue of the digits 0 to 9, which their gray values are multiplied with."""

_DIGITS = 10
# The class of each digit, as the authors number them; 0 is the background.
_CLASS = np.array([10, 1, 2, 3, 4, 5, 6, 7, 8, 9], np.int32)
_SHADES = np.zeros((_DIGITS + 1, 256, 3), np.uint8)
_SHADES[_CLASS] = np.arange(256)[:, None] * np.array(DIGIT_COLORS)[:, None] + 0.5

Scene = tuple[np.ndarray, np.ndarray, np.ndarray]


def digit_scene(
    rng: np.random.Generator,
    images_by_digit: Sequence[np.ndarray],
    *,
    min_digits: int = 0,
    max_digits: int = 9,
    same_class_share: float = 1 / 3,
    threshold: int = 0,
) -> Scene:
    """Draw a scene of the digits tutorial of Kong & Fowlkes (CVPR 2018), as `digits` describes it.

    Corners, the number of digits and their classes are uniform; in a share of the scenes all are of
    one class. A digit overwrites those before it. One of which fewer than `MIN_PIXELS` pixels are
    left takes no id, and its pixels show what is beneath. Ids run from 1 without gaps, in the order
    of drawing. The image is uint8 (64, 64, 3), the instances and the classes are int32 (64, 64).
    """
    count = int(rng.integers(min_digits, max_digits + 1))
    one_class = rng.random() < same_class_share
    corners = rng.permutation(len(CORNERS))[:count]
    digits = rng.integers(_DIGITS, size=count)
    if one_class:
        digits[:] = digits[:1]
    picks = rng.random(count)

    gray = np.zeros((CANVAS, CANVAS), np.uint8)
    drawn = np.zeros((CANVAS, CANVAS), np.uint8)
    ids = np.zeros(count + 1, np.int32)
    # From the last digit to the first, so that each takes only what those above it leave.
    for number in range(count, 0, -1):
        top, left = CORNERS[corners[number - 1]]
        images = images_by_digit[digits[number - 1]]
        image = images[int(picks[number - 1] * len(images))]
        window = (slice(top, top + DIGIT), slice(left, left + DIGIT))
        seen = (image > threshold) & (drawn[window] == 0)
        if np.count_nonzero(seen) >= MIN_PIXELS:
            np.copyto(gray[window], image, where=seen)
            drawn[window][seen] = number
            ids[number] = 1
    classes = np.concatenate([np.zeros(1, np.int32), _CLASS[digits]])[drawn]
    return _SHADES[classes, gray], (np.cumsum(ids, dtype=np.int32) * ids)[drawn], classes


def digit_images(source: Any = None, split: str = "train") -> list[np.ndarray]:
    """Load the images of the digits 0 to 9, uint8 (N, 28, 28) each, as `digits` takes them."""
    check_choice("split", split, SPLITS)
    if source is None:
        try:
            return _by_digit(*keras.datasets.mnist.load_data()[SPLITS.index(split)])
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise ValueError(
                "`source=None` is MNIST, which Keras downloads, and this failed "
                f"({reason[:300]}): pass the path of an .npz file, such as source='mnist.npz'. "
                "Received: source=None"
            ) from error
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise ImageFileError(f"{source} does not exist, or is not a file.")
        try:
            return _read_npz(Path(source), split)
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
            raise ImageFileError(f"{source} is not an .npz file of digits: {reason}.") from None
    try:
        x, y = map(np.asarray, source)
        return _by_digit(x, y, split)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`source` must be None, the path of an .npz file, or arrays (x, y) of uint8 "
            "(N, 28, 28) and of integers (N,) from 0 to 9, with images of each digit for both "
            f"splits. Received: {error}"
        ) from None


def _read_npz(path: Path, split: str) -> list[np.ndarray]:
    """Read the images of a split; nothing is unpickled."""
    with zipfile.ZipFile(path) as archive:
        held = [name.removesuffix(".npy") for name in archive.namelist()]
        has_splits = {f"x_{split}", f"y_{split}"} <= set(held)
        names = (f"x_{split}", f"y_{split}") if has_splits else ("x", "y")
        if not set(names) <= set(held):
            raise ValueError(f"it has neither x_{split} and y_{split} nor x and y, but {held[:6]}")

        def read(name: str) -> np.ndarray:
            info = archive.getinfo(f"{name}.npy")
            if info.file_size > _MAX_BYTES:
                raise ValueError(f"its array {name} has {info.file_size} bytes")
            content = archive.read(info)  # to its end, where the check sum is compared
            return np.load(io.BytesIO(content), allow_pickle=False)

        x, y = map(read, names)
    return _by_digit(x, y, None if has_splits else split)


def _by_digit(x: np.ndarray, y: np.ndarray, split: str | None = None) -> list[np.ndarray]:
    """Sort images by their labels, and keep those of a split where one is to be made."""
    if x.dtype != np.uint8 or x.shape[1:] != (DIGIT, DIGIT):
        raise ValueError(f"images of {x.dtype} and shape {x.shape}")
    if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
        raise ValueError(f"labels of {y.dtype} and shape {y.shape} for {len(x)} images")
    wrong = y[(y < 0) | (y > 9)]
    if len(wrong):
        raise ValueError(f"the label {wrong[0]}, which is not from 0 to 9")
    images = []
    for digit in range(_DIGITS):
        chosen = np.flatnonzero(y == digit)
        if split is not None:
            in_test = np.arange(len(chosen)) % HELD_OUT == 0
            chosen = chosen[in_test == (split == "test")]
        if len(chosen) == 0:
            raise ValueError(f"no image of the digit {digit}")
        images.append(np.ascontiguousarray(x[chosen]))
    return images


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
    workers: int = 0,
) -> tf.data.Dataset | keras.utils.PyDataset:
    """Draw the scenes of the digits tutorial of Kong & Fowlkes (CVPR 2018) as batches for `fit`.

    A scene is 0 to 9 digits of MNIST on a black canvas of 64×64 pixels, their upper left corners
    at {0, 17, 35}², so that some cover others, and each class has its color. Scenes are drawn
    while the dataset is read, and are not kept. MNIST is that of LeCun, Bottou, Bengio and
    Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.

    Each scene follows from the seed, the split and its number, whatever the batch size. With
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
        classes: Whether labels are a dictionary of instances and classes, or only instances.
        min_digits: The smallest number of digits in a scene, from 0.
        max_digits: The largest number of digits in a scene, up to 9.
        same_class_share: Share of the scenes whose digits are all of one class, in [0, 1].
        threshold: Gray value from 0 to 254 above which a pixel belongs to the digit.
        seed: The same seed gives the same scenes; `None` draws one from Python's generator.
        workers: As in `LabelledImages.crops`.

    Returns:
        A dataset as that of `LabelledImages.crops`, of float32 images (B, 64, 64, 3) in 0..255 and
        labels. Labels
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
    check_integer("batch_size", batch_size)
    check_integer("num_scenes", num_scenes)
    if seed is not None:
        check_integer("seed", seed, 0, SEEDS - 1)
    check_integer("workers", workers, 0, 1024)
    check_choice("fresh", fresh, (True, False))
    check_choice("classes", classes, (True, False))
    check_integer("max_digits", max_digits, 1, len(CORNERS))
    check_integer("min_digits", min_digits, 0, max_digits)
    check_number("same_class_share", same_class_share, "[0, 1]")
    check_integer("threshold", threshold, 0, 254)
    images = digit_images(source, split)
    seed = random.randrange(SEEDS) if seed is None else int(seed)

    def draw(number: int) -> Scene:
        return digit_scene(
            np.random.default_rng([seed, SPLITS.index(split), number]),
            images,
            min_digits=min_digits,
            max_digits=max_digits,
            same_class_share=same_class_share,
            threshold=threshold,
        )

    def make(epoch: int, index: int) -> Batch:
        first = epoch * num_scenes if fresh else 0
        start = first + index * batch_size
        stop = min(start + batch_size, first + num_scenes)
        drawn, instances, kinds = map(np.stack, zip(*(draw(n) for n in range(start, stop))))
        labels = {"instances": instances, "classes": kinds} if classes else instances
        return drawn.astype(np.float32), labels

    area = (None, CANVAS, CANVAS)
    maps = keras.KerasTensor(area, "int32")
    target = {"instances": maps, "classes": maps} if classes else maps
    specs = (keras.KerasTensor((*area, 3), "float32"), target)
    return batches(make, math.ceil(num_scenes / batch_size), specs, workers)
