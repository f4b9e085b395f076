"""One image as users have it to the array that the models take."""

from __future__ import annotations

from typing import Any

import numpy as np

MIN_SIDE = 8


def rgb_array(image: Any) -> np.ndarray:
    """Check one image and give it three channels.

    Args:
        image: `(H, W)` gray, `(H, W, 1)` gray, `(H, W, 3)` RGB or `(H, W, 4)` RGBA (the alpha is
            dropped); boolean, integers or floats of any finite range; sides of at least 8 pixels.

    Returns:
        float32 `(H, W, 3)`, values unchanged.

    Raises:
        ValueError: If the shape, the data type or a value is none of these.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.image_array import rgb_array
        >>> rgb_array(np.zeros((10, 12), "uint16")).shape
        (10, 12, 3)
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "`image` must be one image of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). "
            f"Received: shape={np.shape(image)}"
        )
    if min(array.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f"`image` must be at least {MIN_SIDE} pixels high and wide. "
            f"Received: shape={np.shape(image)}"
        )
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"`image` must hold booleans, integers or floats. Received: dtype={array.dtype}"
        )
    array = array[..., :3].astype("float32")
    if not np.isfinite(array).all():
        raise ValueError("`image` must be finite in float32. Received: NaN or infinite pixels")
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array
