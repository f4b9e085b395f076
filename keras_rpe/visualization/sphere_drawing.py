"""The unit sphere itself: a shaded ball with meridians and parallels, half transparent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from keras_rpe.optional_import import optional_import
from keras_rpe.visualization.sphere_view import SphereView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What is behind the ball is drawn before it, what is on it afterwards.
BEHIND, _BALL, _LINES, FRONT = 1, 3, 4, 5
_LIGHT = np.array([-0.45, 0.6, 0.66])
_DARK_COLOR, _BRIGHT_COLOR = np.array([0.76, 0.79, 0.85]), np.array([0.985, 0.99, 1.0])
_OPACITY = 0.64
_LINE_COLOR = "#5a6478"
# Drawn with this half-width, the ball and the dots at its rim fit in.
REACH = 1.09


def draw_sphere(axes: Axes, view: SphereView, side: float) -> None:
    """Draw the ball into a square plot, which it fills.

    What is behind of it belongs at `zorder=BEHIND`, and what is on it at `zorder=FRONT`.

    Args:
        axes: The plot.
        view: From where it is seen.
        side: Side of the plot in pixels.

    Example:
        >>> from keras_rpe.visualization.agg_figure import agg_figure, figure_pixels
        >>> from keras_rpe.visualization.sphere_drawing import draw_sphere
        >>> from keras_rpe.visualization.sphere_view import SphereView
        >>> figure = agg_figure(90, 90)
        >>> draw_sphere(figure.add_axes((0, 0, 1, 1)), SphereView(30, 20), 90)
        >>> bool(figure_pixels(figure)[45, 45].max() < 255)
        True
    """
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    axes.axis("off")
    axes.imshow(_ball(max(round(side), 64)), extent=(-1, 1, -1, 1), zorder=_BALL)
    turn = np.linspace(0, 2 * np.pi, 361)
    axes.plot(np.cos(turn), np.sin(turn), color=_LINE_COLOR, lw=0.0026 * side, zorder=_LINES)
    places, nearness = view.project(_graticule())
    segments = np.stack([places[:, :-1], places[:, 1:]], axis=-2).reshape(-1, 2, 2)
    front = (nearness[:, :-1] + nearness[:, 1:]).reshape(-1) > 0
    for shown, alpha, zorder in ((~front, 0.35, BEHIND), (front, 0.3, _LINES)):
        lines = optional_import("matplotlib.collections", "plot").LineCollection(
            segments[shown], colors=_LINE_COLOR, linewidths=0.0017 * side, alpha=alpha,
            zorder=zorder, capstyle="butt", snap=False,
        )  # fmt: skip
        axes.add_collection(lines)


def _ball(side: int) -> np.ndarray:
    """RGBA `(side, side, 4)` of a ball under a soft light, transparent around it."""
    middle = (np.arange(side) + 0.5) * 2 / side - 1
    x, y = np.meshgrid(middle, -middle)
    radius = np.hypot(x, y)
    normal = np.stack([x, y, np.sqrt(np.clip(1 - radius**2, 0, 1))], axis=-1)
    brightness = np.clip(0.35 + 0.65 * (normal @ (_LIGHT / np.linalg.norm(_LIGHT))), 0, 1)
    color = _DARK_COLOR + brightness[..., None] * (_BRIGHT_COLOR - _DARK_COLOR)
    alpha = _OPACITY * np.clip((1 - radius) * side / 2 + 0.5, 0, 1)
    return np.concatenate([color, alpha[..., None]], axis=-1)


def _graticule() -> np.ndarray:
    """Meridians and parallels, 30° apart, `(lines, 181, 3)`."""
    along = np.linspace(0, 2 * np.pi, 181)
    c, s, zero = np.cos(along), np.sin(along), np.zeros_like(along)
    lines = [
        np.stack([np.cos(a) * c, np.sin(a) * c, s], axis=-1)
        for a in np.radians(np.arange(0, 180, 30))
    ]
    for latitude in np.radians([-60, -30, 0, 30, 60]):
        ring = np.stack([c, s, zero], axis=-1) * np.cos(latitude)
        lines.append(ring + np.array([0.0, 0.0, np.sin(latitude)]))
    return np.stack(lines)
