"""Paths in the plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rpe.optional_import import optional_import
from keras_rpe.visualization.path_stage import square_axes
from keras_rpe.visualization.sphere_drawing import BEHIND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _LINE, _GRID = "#20242c", "#8a93a5", "#e4e7ec"
_TICKS = 6
# Half of the width of the square, and how far it is moved to leave room for the numbers.
_HALF, _SHIFT = 0.93, 0.11


@dataclass(frozen=True)
class PlaneStage:
    """A square of the plane.

    Attributes:
        center: Its middle, `(2,)`.
        extent: Half of its side.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.plane_stage import PlaneStage
        >>> stage = PlaneStage(np.array([5.0, 5.0]), 2.0)
        >>> places, front = stage.place(np.array([[5.0, 5.0], [7.0, 5.0]]), 0)
        >>> round(float(places[1, 0] - places[0, 0]), 6)
        0.93
    """

    center: np.ndarray
    extent: float

    def place(self, points: np.ndarray, loop: float) -> tuple[np.ndarray, np.ndarray]:
        """Places `(n, 2)` of points `(n, 2)`, all of them in front."""
        shown = (points - self.center) * (_HALF / self.extent) + _SHIFT
        return shown, np.ones(len(points), bool)

    def draw(self, axes: Axes, side: float) -> None:
        """Draw a grid and its numbers."""
        square_axes(axes)
        low, high = _SHIFT - _HALF, _SHIFT + _HALF
        locator = optional_import("matplotlib.ticker", "plot").MaxNLocator(
            _TICKS, steps=[1, 2, 5, 10]
        )
        style: dict[str, Any] = {"size": 0.032 * side, "color": _INK}
        for axis in (0, 1):
            ends = self.center[axis] + np.array([-self.extent, self.extent])
            ticks = locator.tick_values(*ends)
            for tick in ticks[(ticks >= ends[0]) & (ticks <= ends[1])]:
                point = self.center.copy()
                point[axis] = tick
                at = self.place(point[None], 0)[0][0, axis]
                line = ([at, at], [low, high])
                axes.plot(*line[:: 1 - 2 * axis], color=_GRID, lw=0.0028 * side, zorder=BEHIND)
                number = f"{tick:g}".replace("-", "\N{MINUS SIGN}")
                if axis == 0:
                    axes.text(at, low - 0.02, number, ha="center", va="top", **style)
                else:
                    axes.text(low - 0.025, at, number, ha="right", va="center", **style)
        frame = ([low, high, high, low, low], [low, low, high, high, low])
        axes.plot(*frame, color=_LINE, lw=0.0028 * side, zorder=BEHIND + 0.1)
