"""Where paths of points are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from keras_rpe.visualization.sphere_drawing import REACH

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class PathStage(Protocol):
    """Where points are at a time, and what is drawn around them.

    Attributes:
        extent: Half of the width that the points spread over.
    """

    @property
    def extent(self) -> float: ...  # noqa: D102

    def place(self, points: np.ndarray, loop: float) -> tuple[np.ndarray, np.ndarray]:
        """Places `(n, 2)` of points `(n, D)` after a loop, and whether they are in front."""
        ...

    def draw(self, axes: Axes, side: float) -> None:
        """Draw what is around the points into a square plot."""
        ...


def square_axes(axes: Axes) -> None:
    """Let a square plot reach as far as that of a sphere, with no axes.

    Args:
        axes: The plot.

    Example:
        >>> from keras_rpe.visualization.agg_figure import agg_figure
        >>> from keras_rpe.visualization.path_stage import square_axes
        >>> axes = agg_figure(50, 50).add_axes((0, 0, 1, 1))
        >>> square_axes(axes)
        >>> bool(axes.get_xlim()[1] > 1)
        True
    """
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    axes.axis("off")


def unit_points(points: np.ndarray) -> np.ndarray:
    """Move points to length 1.

    Args:
        points: `(..., D)`.

    Returns:
        `(..., D)`; the origin, which has no direction, stays.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.path_stage import unit_points
        >>> unit_points(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    return points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-9)
