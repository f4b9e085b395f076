"""Instances drawn over their image."""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.color import hsv2rgb
from skimage.segmentation import find_boundaries

from keras_rpe.arguments import check_number
from keras_rpe.results import rgb_array


def displayed_image(image: Any) -> np.ndarray:
    """Stretch an image so that its percentiles 1 and 99.8 become 0 and 1; float64 RGB."""
    array = rgb_array(image).astype("float64")
    low, high = np.percentile(array, (1.0, 99.8))
    if not high > low:
        low, high = array.min(), array.max()
    return np.clip((array - low) / (high - low), 0, 1) if high > low else np.zeros_like(array)


_GOLDEN_RATIO = (5**0.5 - 1) / 2


def instance_colors(ids: np.ndarray) -> np.ndarray:
    """Bright colors of ids `(n,)`, each the same one in every picture: RGB `(n, 3)` in [0, 1]."""
    # Steps of the golden ratio keep near ids apart in hue.
    hue = np.mod(ids.astype("float64") * _GOLDEN_RATIO, 1.0)
    saturation = np.where(ids % 3 == 0, 0.55, 0.95)
    value = np.where(ids % 2 == 0, 1.0, 0.85)
    return hsv2rgb(np.stack([hue, saturation, value], axis=-1)[None])[0]


def check_labels(labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return labels as an integer array of this shape, or raise `ValueError`."""
    array = np.asarray(labels)
    if array.shape != shape or array.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers of the shape {shape}. "
            f"Received: labels of shape {array.shape} and dtype {array.dtype}"
        )
    return array


def overlay_instances(image: Any, labels: Any, alpha: float = 0.4) -> np.ndarray:
    """Draw instances over their image, each in a color of its own with its boundary.

    The image is stretched for display so that its percentiles 1 and 99.8 become black and white.

    Args:
        image: `(H, W)` gray, `(H, W, 1)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, any finite values.
        labels: Integers `(H, W)`, 0 = background, every other number one instance.
        alpha: Opacity of the colors in [0, 1]; boundaries, one pixel wide and inside of the
            instances, are opaque.

    Returns:
        uint8 RGB `(H, W, 3)`.

    Raises:
        ValueError: If an argument is not as above.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization import overlay_instances
        >>> labels = np.zeros((16, 20), "int32")
        >>> labels[2:9, 3:12] = 1
        >>> picture = overlay_instances(np.zeros((16, 20), "uint16"), labels)
        >>> picture.shape, picture.dtype.name, picture[labels == 0].max()
        ((16, 20, 3), 'uint8', np.uint8(0))
    """
    picture = displayed_image(image)
    labels = check_labels(labels, picture.shape[:2])
    check_number("alpha", alpha, "[0, 1]")
    ids, inverse = np.unique(labels, return_inverse=True)
    colors = instance_colors(ids)[inverse.reshape(labels.shape)]
    opacity = np.where(labels != 0, alpha, 0.0)
    opacity[find_boundaries(labels, mode="inner") & (labels != 0)] = 1.0
    mixed = picture + opacity[..., None] * (colors - picture)
    return np.round(255 * mixed).astype("uint8")
