"""Paths on the sphere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_rpe.visualization.path_stage import unit_points
from keras_rpe.visualization.sphere_drawing import draw_sphere
from keras_rpe.visualization.sphere_view import SphereView

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class SphereStage:
    """The sphere; points are moved onto it.

    Attributes:
        view: From where it is seen.
        extent: Half of its width.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.sphere_stage import SphereStage
        >>> from keras_rpe.visualization.sphere_view import SphereView
        >>> places, front = SphereStage(SphereView(90, 0)).place(np.array([[0.0, 3.0, 4.0]]), 0)
        >>> places.round(6).tolist(), front.tolist()
        ([[0.0, 0.8]], [True])
    """

    view: SphereView
    extent: float = 1.0

    def place(self, points: np.ndarray, loop: float) -> tuple[np.ndarray, np.ndarray]:
        """Places `(n, 2)` of points `(n, 3)`, and whether they are on the front half."""
        places, nearness = self.view.project(unit_points(points))
        return places, nearness >= 0

    def draw(self, axes: Axes, side: float) -> None:
        """Draw the ball."""
        draw_sphere(axes, self.view, side)
