"""Colours that tell instances apart."""

from __future__ import annotations

import numpy as np
from skimage.color import hsv2rgb

_GOLDEN_RATIO = (5**0.5 - 1) / 2


def instance_colors(ids: np.ndarray) -> np.ndarray:
    """Give ids bright colours, each the same one in every picture.

    Args:
        ids: Integers `(n,)`.

    Returns:
        RGB `(n, 3)` in [0, 1].

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.instance_colors import instance_colors
        >>> instance_colors(np.arange(1, 4)).shape
        (3, 3)
    """
    # Steps of the golden ratio keep near ids apart in hue.
    hue = np.mod(ids.astype("float64") * _GOLDEN_RATIO, 1.0)
    saturation = np.where(ids % 3 == 0, 0.55, 0.95)
    value = np.where(ids % 2 == 0, 1.0, 0.85)
    return hsv2rgb(np.stack([hue, saturation, value], axis=-1)[None])[0]
