"""The scenes of the paper's tutorial: handwritten digits that cover each other."""

from __future__ import annotations

import math
import os
import random
import struct
import tokenize
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np
import tensorflow as tf

from keras_rpe.arguments import check_choice, check_integer
from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.damage import DAMAGE
from keras_rpe.checkpoints.file_names import shortened
from keras_rpe.checkpoints.reading_budget import ReadingBudget
from keras_rpe.data.augmentation import SEEDS
from keras_rpe.data.crops import counted_dataset
from keras_rpe.data.images import ImageFileError

# What zipfile and NumPy's parser of headers raise besides.
_DAMAGE: tuple[type[Exception], ...] = (
    *DAMAGE,
    zipfile.BadZipFile,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
)
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SHOWN = 6


def read_digit_file(path: str | Path, split: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Read images and labels of digits.

    The file has the arrays `x_train`, `y_train`, `x_test` and `y_test`, as the mnist.npz of Keras,
    or `x` and `y`; others are passed over. Nothing is unpickled, and at most 512 MiB are read.

    Args:
        path: The file, as `numpy.savez` or `numpy.savez_compressed` write it.
        split: "train" or "test".

    Returns:
        The images, uint8 (N, 28, 28); their labels, integers (N,); and whether they are those of
        the split alone, which `x` and `y` are not.

    Raises:
        ImageFileError: If the file is missing, damaged or of another kind, has no such arrays, or
            they are pickled or of other shapes or types.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from keras_rpe.data.digits import read_digit_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = folder + "/digits.npz"
        ...     np.savez(path, x=np.zeros((2, 28, 28), "uint8"), y=[4, 2])
        ...     x, y, of_split = read_digit_file(path, "train")
        >>> x.shape, y.tolist(), of_split
        ((2, 28, 28), [4, 2], False)
    """
    path = Path(path)
    if path.is_dir():
        raise ImageFileError(f"{path} is a folder, not an .npz file.")
    if not path.is_file():
        raise ImageFileError(f"{path} does not exist.")
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                images, labels = _names(archive, split)
                budget = ReadingBudget(os.fstat(file.fileno()).st_size)
                x = _array(archive, images, budget, (DIGIT, DIGIT), "u")
                y = _array(archive, labels, budget, (), "ui")
        except _DAMAGE as error:
            reason = str(error) if isinstance(error, CheckpointError) else "it is damaged"
            raise ImageFileError(f"{path} cannot be read as an .npz file: {reason}.") from None
    if len(x) != len(y):
        raise ImageFileError(
            f"{path} has {len(x)} images in {images}, but {len(y)} labels in {labels}."
        )
    return x, y, images != "x"


def _names(archive: zipfile.ZipFile, split: str) -> tuple[str, str]:
    held = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    for names in ((f"x_{split}", f"y_{split}"), ("x", "y")):
        if set(names) <= set(held):
            return names
    shown = ", ".join(map(shortened, held[:_SHOWN])) + (", ..." if len(held) > _SHOWN else "")
    raise CheckpointError(
        f"it has neither x_{split} and y_{split} nor x and y, but {shown or 'no array'}"
    )


def _array(
    archive: zipfile.ZipFile, name: str, budget: ReadingBudget, rest: tuple[int, ...], kinds: str
) -> np.ndarray:
    """Read one array, whose shape and size are compared with what is accepted before."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in _COMPRESSIONS or info.flag_bits & 1:
        raise CheckpointError(f"its array {name} is encrypted, or compressed in an unknown way")
    with archive.open(info) as stream:
        shape, fortran_order, dtype = _header(stream)
        if dtype.hasobject:
            raise CheckpointError(f"its array {name} is pickled, and nothing is unpickled here")
        if dtype.kind not in kinds or (rest and dtype != np.uint8):
            wanted = "uint8" if rest else "whole numbers"
            raise CheckpointError(f"its array {name} is of {dtype}, not of {wanted}")
        if len(shape) != 1 + len(rest) or shape[1:] != rest or shape[0] < 1:
            wanted = f"(N, {rest[0]}, {rest[1]})" if rest else "(N,)"
            raise CheckpointError(f"its array {name} has the shape {shape}, not {wanted}, N from 1")
        size = math.prod(shape) * dtype.itemsize
        budget.take_bytes(size)
        # One byte more than there should be: zipfile compares the check sum at the end only.
        content = stream.read(size + 1)
    if len(content) != size:
        raise CheckpointError(f"its array {name} is not as long as its header says")
    values = np.frombuffer(content, dtype)
    return values.reshape(shape, order="F" if fortran_order else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise CheckpointError(f"its arrays are of version {version[0]}.{version[1]}, not 1.0 or 2.0")


CANVAS = 64
"""Height and width of a scene, in pixels."""

DIGIT = 28
"""Height and width of the image of one digit."""

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
    """Draw a scene of the digits tutorial of Kong & Fowlkes (CVPR 2018).

    Digits lie on a black canvas of 64×64 pixels, their upper left corners at {0, 17, 35}² in
    random order, and each has the color of its class. Their number is uniform; the class of each
    is uniform, or, in a share of the scenes, one class is that of all digits, so that only the
    instance tells them apart.

    A digit's mask are the pixels whose gray value is above `threshold`; these alone are drawn,
    and a digit drawn later overwrites those before it. A digit of which fewer than `MIN_PIXELS`
    pixels are left is left out: it takes no id, and its pixels show what is beneath. The ids of
    the others run from 1 without gaps, in the order in which they were drawn.

    Args:
        rng: Where the scene is drawn from; the same state gives the same scene.
        images_by_digit: Ten arrays, uint8 (N, 28, 28), the images of the digits 0 to 9: strokes
            are bright, and each array has one image at least.
        min_digits: The smallest number of digits, from 0.
        max_digits: The largest number of digits, up to 9.
        same_class_share: Share of the scenes whose digits are all of one class, in [0, 1].
        threshold: Gray value from 0 to 254 above which a pixel belongs to the digit.

    Returns:
        The image, uint8 (64, 64, 3); the instances, int32 (64, 64), 0 for the background; and the
        classes, int32 (64, 64): 0 for the background, 1 to 9 for these digits, and 10 for the 0.

    Raises:
        ValueError: If an argument is not as above.

    Source:
        Kong & Fowlkes, "Recurrent Pixel Embedding for Instance Grouping", CVPR 2018, and the
        first tutorial of its code, whose colors and classes these are.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.digits import digit_scene
        >>> bars = np.zeros((1, 28, 28), "uint8")
        >>> bars[:, 6:22, 12:16] = 255
        >>> rng = np.random.default_rng(0)
        >>> image, instances, classes = digit_scene(rng, [bars] * 10, min_digits=3, max_digits=3)
        >>> np.bincount(instances.ravel()).tolist()
        [3904, 64, 64, 64]
    """
    check_scene_arguments(min_digits, max_digits, same_class_share, threshold)
    _check_images(images_by_digit)
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


def check_scene_arguments(
    min_digits: Any, max_digits: Any, same_class_share: Any, threshold: Any
) -> None:
    """Refuse what `digit_scene` cannot draw from.

    Args:
        min_digits: A whole number from 0 to `max_digits`.
        max_digits: A whole number from 1 to 9.
        same_class_share: A number in [0, 1].
        threshold: A whole number from 0 to 254.

    Raises:
        ValueError: If one is not as above.
    """
    most = len(CORNERS)
    if not (_is_whole(max_digits) and 1 <= max_digits <= most):
        raise ValueError(
            f"max_digits needs a whole number from 1 to {most}. Received: max_digits={max_digits!r}"
        )
    if not (_is_whole(min_digits) and 0 <= min_digits <= max_digits):
        raise ValueError(
            "min_digits needs a whole number from 0 to max_digits. "
            f"Received: min_digits={min_digits!r}, max_digits={max_digits}"
        )
    number = isinstance(same_class_share, (int, float)) and not isinstance(same_class_share, bool)
    if not (number and 0 <= same_class_share <= 1):
        raise ValueError(
            "same_class_share needs a number from 0 to 1. "
            f"Received: same_class_share={same_class_share!r}"
        )
    if not (_is_whole(threshold) and 0 <= threshold <= 254):
        raise ValueError(
            f"threshold needs a whole number from 0 to 254. Received: threshold={threshold!r}"
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_images(images_by_digit: Any) -> None:
    if not isinstance(images_by_digit, Sequence) or len(images_by_digit) != _DIGITS:
        raise ValueError(
            f"images_by_digit needs a list of {_DIGITS} arrays. "
            f"Received: {type(images_by_digit).__name__}"
        )
    for digit, images in enumerate(images_by_digit):
        if (
            not isinstance(images, np.ndarray)
            or images.dtype != np.uint8
            or images.shape[1:] != (DIGIT, DIGIT)
            or len(images) == 0
        ):
            raise ValueError(
                f"images_by_digit needs arrays of uint8 and shape (N, {DIGIT}, {DIGIT}), N from 1. "
                f"Received: {getattr(images, 'dtype', type(images).__name__)} of shape "
                f"{getattr(images, 'shape', ())} for the digit {digit}"
            )


SPLITS = ("train", "test")
"""The parts of a set of digits, which have no image in common."""

HELD_OUT = 7
"""Of images without a split, each class gives every seventh to the test, which is MNIST's share."""


def digit_images(source: Any = None, split: str = "train") -> list[np.ndarray]:
    """Load the images of the digits 0 to 9.

    MNIST is that of LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to
    Document Recognition", Proceedings of the IEEE 1998.

    Args:
        source: `None` for MNIST, which Keras downloads once and keeps; the path of an .npz file
            with the arrays x_train, y_train, x_test and y_test, or with x and y; or a pair of
            arrays (x, y). Images x are uint8 (N, 28, 28), bright on black, and labels y
            integers from 0 to 9.
        split: "train" or "test". Where the source has no split, the first and every seventh image
            after it of each class are for the test, in the order of the source.

    Returns:
        Ten arrays, uint8 (N, 28, 28), for the digits 0 to 9, each of one image at least.

    Raises:
        ValueError: If an argument is not as above, or MNIST cannot be downloaded.
        ImageFileError: If the file cannot be used; it is a ValueError.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.digits import digit_images
        >>> x, y = np.zeros((140, 28, 28), "uint8"), np.arange(140) % 10
        >>> [len(images) for images in digit_images((x, y), "test")]
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    if split not in SPLITS:
        raise ValueError(f"split needs one of {', '.join(SPLITS)}. Received: split={split!r}")
    if isinstance(source, (str, Path)):
        x, y, of_split = read_digit_file(source, split)
        where: str | None = str(source)
    elif source is None:
        (x, y), of_split, where = _mnist(split), True, None
    else:
        (x, y), of_split, where = _checked_arrays(source), False, None
    problem = _problem_of_labels(y)
    images = []
    missing = []
    for digit in range(10):
        chosen = np.flatnonzero(y == digit)
        if not of_split:
            in_test = np.arange(len(chosen)) % HELD_OUT == 0
            chosen = chosen[in_test == (split == "test")]
        images.append(np.ascontiguousarray(x[chosen]))
        if len(chosen) == 0:
            missing.append(str(digit))
    if missing and not problem:
        problem = f"no image of {', '.join(missing)} for the split {split}"
    if problem and where is not None:
        raise ImageFileError(f"{where} has {problem}.")
    if problem:
        needed = "source needs labels from 0 to 9, and images of each for both splits"
        raise ValueError(f"{needed}. Received: {problem}")
    return images


def _problem_of_labels(y: np.ndarray) -> str | None:
    wrong = y[(y < 0) | (y > 9)]
    return f"the label {wrong[0]}, which is not from 0 to 9" if len(wrong) else None


def _mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        train, test = keras.datasets.mnist.load_data()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"source=None is MNIST, which Keras downloads, and this failed ({reason[:300]}): pass "
            "the path of an .npz file instead, such as source='mnist.npz'. Received: source=None"
        ) from error
    return _checked_arrays(train if split == "train" else test)


def _checked_arrays(source: Any) -> tuple[np.ndarray, np.ndarray]:
    wanted = (
        f"source needs None, the path of an .npz file, or arrays (x, y) of uint8 (N, {DIGIT}, "
        f"{DIGIT}) and integers (N,). Received:"
    )
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        raise ValueError(f"{wanted} {type(source).__name__}")
    try:
        x, y = np.asarray(source[0]), np.asarray(source[1])
    except (TypeError, ValueError):
        raise ValueError(f"{wanted} what is no array") from None
    if (
        x.dtype != np.uint8
        or x.shape[1:] != (DIGIT, DIGIT)
        or y.dtype.kind not in "iu"
        or y.shape != x.shape[:1]
    ):
        raise ValueError(f"{wanted} {x.dtype} {x.shape} and {y.dtype} {y.shape}")
    return x, y


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
    check_integer("batch_size", batch_size)
    check_integer("num_scenes", num_scenes)
    if seed is not None:
        check_integer("seed", seed, 0, SEEDS - 1)
    check_choice("fresh", fresh, (True, False))
    check_choice("classes", classes, (True, False))
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
