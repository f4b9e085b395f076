"""Figures of matplotlib as arrays, with no window and nothing of pyplot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rpe.optional_import import optional_import

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# One point of matplotlib's lengths is then one pixel.
_DPI = 72


def agg_figure(width: int, height: int) -> Figure:
    """Make an empty white figure, whose points are pixels.

    Args:
        width: In pixels, at least 1.
        height: In pixels, at least 1.

    Returns:
        The figure, drawn by Agg.

    Raises:
        ImportError: If matplotlib is missing.

    Example:
        >>> from keras_rpe.visualization.agg_figure import agg_figure, figure_pixels
        >>> figure_pixels(agg_figure(30, 20)).shape
        (20, 30, 3)
    """
    figure_module = optional_import("matplotlib.figure", "plot")
    agg = optional_import("matplotlib.backends.backend_agg", "plot")
    figure: Figure = figure_module.Figure(
        figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white"
    )
    agg.FigureCanvasAgg(figure)
    return figure


def figure_pixels(figure: Figure) -> np.ndarray:
    """Draw a figure.

    Args:
        figure: One of `agg_figure`.

    Returns:
        uint8 RGB `(height, width, 3)`.

    Example: see `agg_figure`.
    """
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
