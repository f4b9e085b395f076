"""The loss before mean shift and after each of its loops, over training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rpe.optional_import import optional_import
from keras_rpe.visualization.agg_figure import agg_figure, figure_pixels
from keras_rpe.visualization.point_arguments import check_side
from keras_rpe.visualization.training_losses import training_losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Margins of the plot in pixels, left, right, below and above; the key is at the right.
_LEFT, _RIGHT, _BOTTOM, _TOP = 62, 132, 46, 16
_INK, _GRID = "#20242c", "#e4e7ec"
_LETTERS = 13
# Up to so many epochs, each of them has a dot.
_FEW_EPOCHS = 25


def loss_per_loop(
    history: Any, log_scale: bool = False, width: int = 640, height: int = 400
) -> np.ndarray:
    """Draw the loss on the embeddings before mean shift and after each loop, over the epochs.

    The lines go from dark to bright with the loops; those of validation data are dashed. Losses
    that are not finite leave a gap.

    Args:
        history: What `fit` of an `InstanceSegmenter` returns, or its `history`, or the path of a
            log of `keras.callbacks.CSVLogger`: losses named `embedding_loss`, `shift_1_loss`, …
            and those with `val_` before them. Others are not drawn.
        log_scale: Whether the axis of the loss is logarithmic.
        width: Of the picture in pixels, from 320 to 4000.
        height: Of the picture in pixels, from 200 to 4000.

    Returns:
        uint8 RGB `(height, width, 3)`.

    Raises:
        ValueError: If an argument is not as above, or there is no finite loss.
        OSError: If the file cannot be read.
        ImportError: If matplotlib is missing.

    Source: Kong & Fowlkes (CVPR 2018), section 4: a loss at every loop.

    Example:
        >>> from keras_rpe.visualization import loss_per_loop
        >>> history = {"embedding_loss": [0.5, 0.4, 0.35], "shift_1_loss": [0.4, 0.2, 0.1]}
        >>> loss_per_loop(history).shape
        (400, 640, 3)
    """
    check_side(width, 320, name="width")
    check_side(height, 200, name="height")
    epochs, losses = training_losses(history)
    if log_scale and not any((one.values > 0).any() for one in losses):
        raise ValueError("`history` must hold a positive loss for `log_scale`. Received: none")
    figure = agg_figure(width, height)
    size = np.array([width, height, width, height])
    corner = np.array([_LEFT, _BOTTOM, width - _LEFT - _RIGHT, height - _BOTTOM - _TOP])
    axes = figure.add_axes(tuple(corner / size))
    loops = sorted({one.loop for one in losses})
    colors = optional_import("matplotlib", "plot").colormaps["plasma"]
    for one in losses:
        position = loops.index(one.loop) / max(len(loops) - 1, 1)
        name = f"loop {one.loop}" if one.loop else "embedding"
        known = np.isfinite(one.values) & ((one.values > 0) | (not log_scale))
        axes.plot(
            epochs, np.where(known, one.values, np.nan),
            color=colors(0.05 + 0.78 * position), lw=1.4 if one.validation else 2.2,
            ls=(0, (3, 1.6)) if one.validation else "-", label=name, zorder=3,
            marker="o" if epochs.size <= _FEW_EPOCHS else None, ms=3 if one.validation else 4.5,
        )  # fmt: skip
    _dress(axes, epochs, log_scale)
    _draw_key(axes, {one.validation for one in losses})
    return figure_pixels(figure)


def _dress(axes: Axes, epochs: np.ndarray, log_scale: bool) -> None:
    """Set the scales, the grid and the names of the axes."""
    ticker = optional_import("matplotlib.ticker", "plot")
    if log_scale:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        drawn = np.concatenate([np.asarray(line.get_ydata()) for line in axes.get_lines()])
        low, high = min(0.0, float(np.nanmin(drawn))), max(0.0, float(np.nanmax(drawn)))
        margin = 0.06 * (high - low) or 1.0
        axes.set_ylim(low - margin if low < 0 else low, high + margin)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    if epochs.size == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    axes.grid(color=_GRID, lw=1, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=_INK, lw=1)
    axes.tick_params(colors=_INK, labelsize=_LETTERS - 1, width=1, which="both")
    axes.set_xlabel("epoch", size=_LETTERS, color=_INK)
    axes.set_ylabel("loss", size=_LETTERS, color=_INK)


def _draw_key(axes: Axes, kinds: set[bool]) -> None:
    """Name the loops by colour, and training and validation by dash if there are both."""
    line = optional_import("matplotlib.lines", "plot").Line2D
    named = {one.get_label(): one.get_color() for one in axes.get_lines()}
    entries = [line([], [], color=color, lw=2.2, label=name) for name, color in named.items()]
    if kinds == {False, True}:
        entries.append(line([], [], color=_INK, lw=2.2, label="training"))
    if True in kinds:
        dash = (0, (3, 1.6))
        entries.append(line([], [], color=_INK, lw=1.4, ls=dash, label="validation"))
    axes.legend(
        handles=entries, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0,
        frameon=False, fontsize=_LETTERS - 1, labelcolor=_INK, handlelength=2.0,
    )  # fmt: skip
