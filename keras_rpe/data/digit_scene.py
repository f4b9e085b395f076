"""One image of several handwritten digits, and which pixel belongs to which of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

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
        >>> from keras_rpe.data.digit_scene import digit_scene
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
