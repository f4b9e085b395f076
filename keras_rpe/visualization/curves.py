"""Curves of training and of the boundary benchmark."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from keras_rpe.optional_import import optional_import
from keras_rpe.visualization.sphere import agg_figure, check_side, figure_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keras_rpe.metrics import BoundaryFigures

_NAME = re.compile(r"(val_)?(?:embedding|shift_([1-9]\d{0,3}))_loss")
_MAX_BYTES = 64 * 2**20


class LoopLosses(NamedTuple):
    """The loss on the embeddings after one number of loops.

    Attributes:
        loop: After how many loops; 0 is before mean shift.
        validation: Whether it is of the validation data.
        values: The loss of each epoch, NaN where none is known.
    """

    loop: int
    validation: bool
    values: np.ndarray


def training_losses(history: Any) -> tuple[np.ndarray, list[LoopLosses]]:
    """Find the losses of the loops in what a training run has logged.

    Args:
        history: What `fit` returns, or its `history`, or the path of a file that
            `keras.callbacks.CSVLogger` wrote.

    Returns:
        The numbers of the epochs from 1, `(epochs,)`, and the losses, in order of the loops, those
        of training before those of validation.

    Raises:
        ValueError: If it is none of these, or has no such losses, or none that is finite.
        OSError: If the file cannot be read.

    Example:
        >>> from keras_rpe.visualization.curves import training_losses
        >>> epochs, losses = training_losses({"embedding_loss": [2, 1], "shift_1_loss": [1, 0.5]})
        >>> epochs.tolist(), [one.values.tolist() for one in losses]
        ([1, 2], [[2.0, 1.0], [1.0, 0.5]])
    """
    epochs: Any = None
    columns: Mapping[Any, Any]
    if isinstance(history, (str, os.PathLike)):
        columns = _read_csv(Path(history))
        epochs = columns.get("epoch")
    elif isinstance(history, Mapping):
        columns = history
    elif isinstance(getattr(history, "history", None), Mapping):
        columns, epochs = history.history, getattr(history, "epoch", None)
    else:
        raise ValueError(
            "`history` must be what fit() returns, a dictionary of lists, or the path of a CSV "
            f"log. Received: {type(history).__name__}"
        )
    losses = []
    for name, values in columns.items():
        match = _NAME.fullmatch(str(name))
        if match:
            numbers = _numbers(str(name), values)
            losses.append(LoopLosses(int(match[2] or 0), match[1] is not None, numbers))
    if not losses:
        raise ValueError(
            "`history` must hold losses of the names embedding_loss, shift_1_loss, … of one epoch "
            f"at least. Received: {sorted(map(str, columns))}"
        )
    lengths = {one.values.size for one in losses}
    if len(lengths) > 1 or lengths == {0}:
        raise ValueError(
            "`history` must hold a loss for each epoch, of one epoch at least. "
            f"Received: losses of {sorted(lengths)} epochs"
        )
    if not any(np.isfinite(one.values).any() for one in losses):
        raise ValueError("`history` must hold a finite loss. Received: none")
    (length,) = lengths
    numbers = np.arange(length)
    if epochs is not None:
        numbers = _numbers("epoch", epochs)
        if numbers.size != length or not np.isfinite(numbers).all():
            raise ValueError(
                "`history` must number each of its epochs. "
                f"Received: {numbers.size} numbers of {length} epochs"
            )
    return numbers + 1, sorted(losses, key=lambda one: (one.validation, one.loop))


def _numbers(name: str, values: Any) -> np.ndarray:
    """Values as float64 `(n,)`; what is missing is NaN."""
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, str):
        raise ValueError(
            f"`history` must hold lists. Received: {name} of type {type(values).__name__}"
        )
    missing = (None, "", "NA")
    try:
        return np.array(
            [np.nan if isinstance(v, (str, type(None))) and v in missing else float(v)
             for v in values]
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise ValueError(f"`history` must hold numbers. Received: {name}={values!r:.80}") from error


def _read_csv(path: Path) -> dict[str, list[str | None]]:
    """The columns of a CSV file by the names in its first row."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(
            f"`history` must be a CSV log of at most {_MAX_BYTES >> 20} MiB. "
            f"Received: {path} of {path.stat().st_size >> 20} MiB"
        )
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"`history` must be a CSV log. Received: {path}: {error}") from error
    if any(None in row for row in rows):
        raise ValueError(
            f"`history` must be a CSV log. Received: {path} with rows longer than its first"
        )
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


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


# What is left of the square, above, right and below, and the size of letters, in pixels.
(
    _PRECISION_RECALL_PICTURE_LEFT,
    _PRECISION_RECALL_PICTURE_TOP,
    _PRECISION_RECALL_PICTURE_RIGHT,
    _PRECISION_RECALL_PICTURE_BOTTOM,
) = 58, 14, 34, 48
_PRECISION_RECALL_PICTURE_LETTERS = 14
# Drawn this much larger and then made smaller, lines are smooth.
_SCALE = 3
# Okabe and Ito's colours, told apart by the colour-blind too.
_CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_EQUAL_F, _POINT = "#b8d8b8", "#2e8b2e"

Place = tuple[float, float]


def precision_recall_picture(
    figures: Mapping[str, BoundaryFigures],
    points: Mapping[str, Place] | None = None,
    side: int = 480,
) -> np.ndarray:
    """Draw precision over recall of boundary maps, among lines of equal F-measure.

    A dot on each curve is where its F-measure is best. The key names that F-measure, the ODS, and
    the method, the best one first.

    Args:
        figures: Name and figures of each method, as `boundary_benchmark` gives them.
        points: Names and (recall, precision) of what has no curve, such as people.
        side: Sides of the square of the plot, in pixels, from 200 to 2000.

    Returns:
        uint8 RGB `(side + 62, side + 92, 3)`.

    Raises:
        ValueError: If there is nothing to draw, a point does not lie in [0, 1], or `side` is out
            of its range.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import boundary_benchmark
        >>> from keras_rpe.visualization import precision_recall_picture
        >>> truth = np.zeros((20, 20), bool)
        >>> truth[10] = True
        >>> figures = boundary_benchmark([np.where(truth, 0.8, 0)], [[truth]], thresholds=9)
        >>> precision_recall_picture({"line": figures}, {"Human": (0.7, 0.9)}).shape
        (542, 572, 3)
    """
    points = {} if points is None else points
    if not figures and not points:
        raise ValueError("`figures` must hold at least one method. Received: none, and no points")
    for name, place in points.items():
        if len(place) != 2 or not all(0.0 <= value <= 1.0 for value in place):
            raise ValueError(
                "`points` must be pairs (recall, precision) in [0, 1]. "
                f"Received: {name!r} at {place}"
            )
    if not (isinstance(side, int) and 200 <= side <= 2000):
        raise ValueError(f"`side` must be an integer from 200 to 2000. Received: side={side!r}")
    plot = _Plot(side)
    _draw_axes(plot)
    key = []
    for index, (name, one) in enumerate(figures.items()):
        color = _CURVES[index % len(_CURVES)]
        measured = (one.recall > 0) & (one.precision > 0)
        plot.line(plot.at(one.recall[measured], one.precision[measured]), color, 2)
        plot.dot(plot.at(one.ods_recall, one.ods_precision)[0], color, 4)
        key.append((one.ods, name, color))
    for name, (recall, precision) in points.items():
        plot.dot(plot.at(recall, precision)[0], _POINT, 6)
        f = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
        key.append((f, name, _POINT))
    _precision_recall_picture_draw_key(plot, sorted(key, key=lambda entry: -entry[0]))
    return np.asarray(plot.image.resize(plot.size, Image.Resampling.LANCZOS))


class _Plot:
    """A square of recall and precision from 0 to 1; places are pixels of the picture."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.size = (
            _PRECISION_RECALL_PICTURE_LEFT + side + _PRECISION_RECALL_PICTURE_RIGHT,
            _PRECISION_RECALL_PICTURE_TOP + side + _PRECISION_RECALL_PICTURE_BOTTOM,
        )
        width, height = self.size
        self.image = Image.new("RGB", (width * _SCALE, height * _SCALE), "white")
        self._draw = ImageDraw.Draw(self.image)
        self._font = ImageFont.load_default(_PRECISION_RECALL_PICTURE_LETTERS * _SCALE)

    def at(self, recall: npt.ArrayLike, precision: npt.ArrayLike) -> list[Place]:
        """The places of values, which lie in [0, 1]."""
        x = _PRECISION_RECALL_PICTURE_LEFT + self.side * np.atleast_1d(recall)
        y = _PRECISION_RECALL_PICTURE_TOP + self.side * (1 - np.atleast_1d(precision))
        return list(zip(x.tolist(), y.tolist()))

    def line(self, places: list[Place], color: str, width: float) -> None:
        if len(places) > 1:
            large = [(x * _SCALE, y * _SCALE) for x, y in places]
            self._draw.line(large, color, round(width * _SCALE), joint="curve")

    def dot(self, place: Place, color: str, radius: float) -> None:
        x, y = place
        box = (x - radius, y - radius, x + radius, y + radius)
        self._draw.ellipse([value * _SCALE for value in box], color, "white", _SCALE)

    def box(self, corner: Place, size: Place, outline: str | None = None) -> None:
        """A white rectangle below and right of a corner."""
        (x, y), (width, height) = corner, size
        sides = [value * _SCALE for value in (x, y, x + width, y + height)]
        self._draw.rectangle(sides, None if outline else "white", outline, _SCALE)

    def write(self, place: Place, text: str, anchor: str, color: str = "black") -> None:
        x, y = place
        self._draw.text((x * _SCALE, y * _SCALE), text, color, self._font, anchor)

    def write_upwards(self, place: Place, text: str) -> None:
        """Letters that rise, with the middle of their left side at a place."""
        length, height = round(self.length(text)) + 1, 2 * _PRECISION_RECALL_PICTURE_LETTERS
        strip = Image.new("RGB", (length * _SCALE, height * _SCALE), "white")
        draw = ImageDraw.Draw(strip)
        draw.text((0, 0), text, "black", self._font, "lt")
        x, y = place[0], place[1] - length / 2
        turned = strip.transpose(Image.Transpose.ROTATE_90)
        self.image.paste(turned, (round(x * _SCALE), round(y * _SCALE)))

    def length(self, text: str) -> float:
        return self._draw.textlength(text, self._font) / _SCALE


def _draw_axes(plot: _Plot) -> None:
    _, height = plot.size
    left, middle = plot.at(0, 0.5)[0]
    plot.write_upwards((4, middle), "Precision")
    plot.write((left + plot.side / 2, height - 6), "Recall", "mb")
    for tick in np.arange(0, 11, 2) / 10:
        x, bottom = plot.at(tick, 0)[0]
        plot.write((x, bottom + 6), f"{tick:.1f}", "mt")
        plot.write((left - 5, plot.at(0, tick)[0][1]), f"{tick:.1f}", "rm")
    for f in np.arange(1, 10) / 10:
        recall = np.linspace(f / (2 - f), 1, 200)
        places = plot.at(recall, f * recall / (2 * recall - f))
        plot.line(places, _EQUAL_F, 1)
        x, y = places[-1]
        plot.write((x + 5, y), f"{f:.1f}", "lm", _POINT)
    plot.box((left, _PRECISION_RECALL_PICTURE_TOP), (plot.side, plot.side), outline="black")


def _precision_recall_picture_draw_key(plot: _Plot, key: list[tuple[float, str, str]]) -> None:
    """Write F-measure and name of each method in the lower left, where curves seldom are."""
    texts = [f"[F={f:.3f}] {name}".replace("=0.", "=.") for f, name, _ in key]
    step, line = 1.4 * _PRECISION_RECALL_PICTURE_LETTERS, 18
    x, bottom = plot.at(0.02, 0.02)[0]
    top = bottom - step * len(key)
    width = line + 12 + math.ceil(max(plot.length(text) for text in texts))
    plot.box((x, top), (width, bottom - top))
    for row, (text, (_, _, color)) in enumerate(zip(texts, key)):
        y = top + step * (row + 0.5)
        plot.line([(x, y), (x + line, y)], color, 3)
        plot.write((x + line + 8, y), text, "lm")
