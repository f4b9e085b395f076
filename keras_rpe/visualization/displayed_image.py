"""An image of any value range as one that can be shown."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_rpe.models.image_array import rgb_array


def displayed_image(image: Any) -> np.ndarray:
    """Stretch an image so that its percentiles 1 and 99.8 become black and white.

    Args:
        image: `(H, W)` gray, `(H, W, 1)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, any finite values.

    Returns:
        float64 RGB `(H, W, 3)` in [0, 1]; a constant image is black.

    Raises:
        ValueError: If it is not one such image.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.displayed_image import displayed_image
        >>> displayed_image(100 + np.eye(8))[0, :2, 0].tolist()
        [1.0, 0.0]
    """
    array = rgb_array(image).astype("float64")
    low, high = np.percentile(array, (1.0, 99.8))
    if not high > low:
        low, high = array.min(), array.max()
    return np.clip((array - low) / (high - low), 0, 1) if high > low else np.zeros_like(array)
