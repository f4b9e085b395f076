"""The boundary map that an exported model gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_rpe.export.served_model import ServedModel


def served_boundaries(served: ServedModel, image: Any) -> np.ndarray:
    """Detect the boundaries in one image by an exported model.

    Args:
        served: What `load_served` gave.
        image: As `predict_boundaries` takes it; uint8, or any type where `served.takes_floats`.

    Returns:
        How likely each pixel is a boundary, `(H, W)`, float32 in [0, 1].

    Raises:
        ValueError: If it is not one such image, or the answer no such map.
        ConnectionError: If a server is not reachable.
    """
    from keras_rpe.models.image_array import rgb_array

    pixels, dtype = rgb_array(image), np.asarray(image).dtype
    if dtype == np.uint8:
        pixels = pixels.astype(np.uint8)
    elif not served.takes_floats:
        raise ValueError(f"{served.source} takes an image of uint8. Received: dtype={dtype}")
    height, width = pixels.shape[:2]
    answer = served.predict_tables(pixels[None])
    values = _numbers(answer.get("boundaries"))
    # A NaN makes the smallest value NaN, which fails the comparison.
    if values.shape != (1, height, width) or not 0 <= values.min() <= values.max() <= 1:
        raise ValueError(
            f"{served.source} must give boundaries of one image of {height} x {width} pixels, "
            f"between 0 and 1, like the exports of a BoundaryDetector. Received: "
            f"{', '.join(sorted(answer)) or 'nothing'}, with boundaries of shape={values.shape}"
        )
    return values[0]


def _numbers(value: Any) -> np.ndarray:
    """An array, empty where the value is none of numbers."""
    try:
        return np.asarray([] if value is None else value, np.float32)
    except (TypeError, ValueError):
        return np.empty(0, np.float32)
