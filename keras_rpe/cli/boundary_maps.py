"""The boundary maps of an image, of all kinds at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_rpe.models import BoundaryDetector

MapFunction = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def read_photograph(path: Path) -> np.ndarray:
    """Read an image whose type of values says what is white.

    Args:
        path: A PNG, JPEG or TIFF file.

    Returns:
        uint8 or uint16, `(H, W)`, `(H, W, 3)` or `(H, W, 4)`.

    Raises:
        ImageFileError: If it cannot be read, or is not one of 8 or 16 bits.
    """
    from keras_rpe.data import ImageFileError, read_image

    image = read_image(path)
    if image.dtype.kind != "u":
        raise ImageFileError(f"{path} holds values of type {image.dtype}, not of 8 or 16 bits.")
    return image


def map_function(model: BoundaryDetector) -> MapFunction:
    """Compile what gives an image's boundaries and the thinned ones, in one run of the network.

    Args:
        model: The model.

    Returns:
        A function of an image, uint8 or uint16, whose largest value is taken as white. It gives
        the boundaries and those thinned, each `(H, W)`, float32 in [0, 1].
    """
    from keras_rpe.models.compiled_function import compiled_function
    from keras_rpe.models.image_array import rgb_array

    white = model.get_config()["max_value"]
    detect = compiled_function(model.detect, [(None, None, None, 3)])

    def maps(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = rgb_array(image) * np.float32(white / np.iinfo(image.dtype).max)
        found = detect(pixels[None])
        return np.asarray(found["boundaries"])[0], np.asarray(found["thin"])[0]

    return maps
