"""What the pictures of points take, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_rpe.visualization.instance_colors import instance_colors
from keras_rpe.visualization.integer_argument import check_integer
from keras_rpe.visualization.sphere_view import SphereView

# Of a unit vector; float16 and an epsilon of a normalization change it by less.
_TOLERANCE = 0.01
_BACKGROUND = np.array([0.55, 0.57, 0.6])
_MAX_PICTURE = 20_000


def is_unit(points: np.ndarray) -> bool:
    """Whether all vectors have length 1.

    Args:
        points: `(..., D)`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.point_arguments import is_unit
        >>> is_unit(np.eye(3)), is_unit(np.ones((4, 3)))
        (True, False)
    """
    return bool(np.abs(np.linalg.norm(points, axis=-1) - 1).max(initial=0.0) <= _TOLERANCE)


def label_array(labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Check labels of points.

    Args:
        labels: Integers of the given shape.
        shape: Shape of the points without their last axis.

    Returns:
        int64 `(n,)`.

    Raises:
        ValueError: If they are not.

    Example:
        >>> from keras_rpe.visualization.point_arguments import label_array
        >>> label_array([[1, 2]], (1, 2)).tolist()
        [1, 2]
    """
    array = np.asarray(labels)
    if array.shape != shape or array.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers of the shape {shape} of the points. "
            f"Received: labels of shape {array.shape} and dtype {array.dtype}"
        )
    return array.reshape(-1).astype("int64")


def label_colors(labels: np.ndarray) -> np.ndarray:
    """Colours of instances, those of `overlay_instances`, and gray for 0, the background.

    Args:
        labels: Integers `(n,)`.

    Returns:
        RGB `(n, 3)` in [0, 1].

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.point_arguments import label_colors
        >>> label_colors(np.array([0])).tolist()
        [[0.55, 0.57, 0.6]]
    """
    ids, inverse = np.unique(labels, return_inverse=True)
    colors = np.where(ids[:, None] == 0, _BACKGROUND, instance_colors(ids))
    return colors[inverse.reshape(-1)]


def color_array(colors: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Check given colours of points.

    Args:
        colors: RGB of the given shape and a last axis of 3: uint8, or floats in [0, 1].
        shape: Shape of the points without their last axis.

    Returns:
        float64 `(n, 3)` in [0, 1].

    Raises:
        ValueError: If they are not.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.point_arguments import color_array
        >>> color_array(np.array([[255, 0, 51]], "uint8"), (1,)).tolist()
        [[1.0, 0.0, 0.2]]
    """
    array = np.asarray(colors)
    of_type = array.dtype == np.uint8 or array.dtype.kind == "f"
    if array.shape != (*shape, 3) or not of_type:
        raise ValueError(
            f"`colors` must be RGB of the shape {(*shape, 3)}, as uint8 or floats. "
            f"Received: colors of shape {array.shape} and dtype {array.dtype}"
        )
    flat = array.reshape(-1, 3).astype("float64") / (255 if array.dtype == np.uint8 else 1)
    # A comparison that NaN fails.
    if not ((flat >= 0) & (flat <= 1)).all():
        raise ValueError("`colors` must be in [0, 1] if they are floats. Received: other values")
    return flat


def check_view(view: Any) -> SphereView | None:
    """Check from where the sphere is seen.

    Args:
        view: Degrees of azimuth and of elevation in [-90, 90], or `None`.

    Returns:
        The view, or `None`.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> from keras_rpe.visualization.point_arguments import check_view
        >>> check_view((30, 20))
        SphereView(azimuth=30.0, elevation=20.0)
    """
    if view is None:
        return None
    try:
        azimuth, elevation = (float(value) for value in view)
    except (TypeError, ValueError):
        azimuth = elevation = np.nan
    if not (np.isfinite(azimuth) and -90 <= elevation <= 90):
        raise ValueError(
            "`view` must be None or degrees (azimuth, elevation), the elevation in [-90, 90]. "
            f"Received: view={view!r}"
        )
    return SphereView(azimuth, elevation)


def check_side(side: Any, low: int, count: int = 1, name: str = "side") -> None:
    """Check a side of a plot in pixels.

    Args:
        side: The side.
        low: The least that it may be.
        count: How many plots lie along one side of the picture.
        name: Name of the argument.

    Raises:
        ValueError: If it is not an integer, or out of its range.

    Example:
        >>> from keras_rpe.visualization.point_arguments import check_side
        >>> check_side(300, 100)
    """
    high = max(low, min(4000, _MAX_PICTURE // count))
    check_integer(name, side, low, high)
