"""The images of handwritten digits that scenes are drawn from, by their class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_rpe.data.digit_file import read_digit_file
from keras_rpe.data.digit_scene import DIGIT
from keras_rpe.data.image_file_error import ImageFileError

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
        >>> from keras_rpe.data.digit_images import digit_images
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
