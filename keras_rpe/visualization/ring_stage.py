"""Paths on the circle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_rpe.visualization.path_stage import square_axes, unit_points
from keras_rpe.visualization.sphere_drawing import BEHIND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = "#8a93a5"
_INNERMOST = 0.3
_MOST_RINGS = 12


@dataclass(frozen=True)
class RingStage:
    """The circle, drawn as a ring for each loop, or each few loops, the last one outermost.

    On one circle paths would lie on top of each other.

    Attributes:
        loops: Number of the loops.
        extent: Half of the width of the circle.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.ring_stage import RingStage
        >>> RingStage(2).place(np.array([[0.0, 1.0]]), 2)[0].tolist()
        [[0.0, 1.0]]
    """

    loops: int
    extent: float = 1.0

    def place(self, points: np.ndarray, loop: float) -> tuple[np.ndarray, np.ndarray]:
        """Places `(n, 2)` of points `(n, 2)`, all of them in front."""
        return unit_points(points) * self._radius(loop), np.ones(len(points), bool)

    def draw(self, axes: Axes, side: float) -> None:
        """Draw the rings."""
        square_axes(axes)
        turn = np.linspace(0, 2 * np.pi, 361)
        circle = np.stack([np.cos(turn), np.sin(turn)])
        for loop in range(self.loops, -1, -math.ceil(self.loops / _MOST_RINGS)):
            axes.plot(
                *(self._radius(loop) * circle), color=_LINE, zorder=BEHIND,
                lw=0.0032 * side if loop == self.loops else 0.0018 * side,
            )  # fmt: skip

    def _radius(self, loop: float) -> float:
        return _INNERMOST + (1 - _INNERMOST) * loop / self.loops
