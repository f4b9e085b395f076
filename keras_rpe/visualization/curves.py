"""Curves of training and of the boundary benchmark, by matplotlib."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rpe.arguments import check_integer
from keras_rpe.optional_import import optional_import
from keras_rpe.visualization.sphere import GRID, INK, figure_pixels, pixel_figure

if TYPE_CHECKING:
    from keras_rpe.metrics import BoundaryFigures

_NAME = re.compile(r"(val_)?(?:embedding|shift_([1-9]\d{0,3}))_loss")
_MAX_BYTES = 64 * 2**20
_LETTERS = 13
_DASHES = (0, (3, 1.6))
# Up to so many epochs, each of them has a dot.
_FEW_EPOCHS = 25
# Okabe and Ito's colors, which the color-blind can tell apart too.
_CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_EQUAL_F, _POINT = "#b8d8b8", "#2e8b2e"


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
        width: Width of the picture in pixels, from 320 to 4000.
        height: Height of the picture in pixels, from 200 to 4000.

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
    check_integer("width", width, 320, 4000)
    check_integer("height", height, 200, 4000)
    epochs, losses = _training_losses(history)
    if log_scale and not any((values > 0).any() for values in losses.values()):
        raise ValueError("`history` must hold a positive loss for `log_scale`. Received: none")
    figure = pixel_figure(width, height)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    loops = sorted({loop for _, loop in losses})
    plasma = optional_import("matplotlib", "plot").colormaps["plasma"]
    named = {
        loop: {
            "color": plasma(0.05 + 0.78 * index / max(len(loops) - 1, 1)),
            "label": f"loop {loop}" if loop else "embedding",
        }
        for index, loop in enumerate(loops)
    }
    for (validation, loop), values in losses.items():
        drawn = np.isfinite(values) & ((values > 0) | (not log_scale))
        axes.plot(
            epochs, np.where(drawn, values, np.nan),
            lw=1.4 if validation else 2.2, ls=_DASHES if validation else "-", zorder=3,
            marker="o" if epochs.size <= _FEW_EPOCHS else None, ms=3 if validation else 4.5,
            **named[loop],
        )  # fmt: skip
    ticker = optional_import("matplotlib.ticker", "plot")
    if log_scale:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        # The axis begins at 0, as far as no loss is below.
        finite = np.concatenate([values[np.isfinite(values)] for values in losses.values()])
        low, high = min(0.0, float(finite.min())), max(0.0, float(finite.max()))
        room = 0.06 * (high - low) or 1.0
        axes.set_ylim(low - room if low < 0 else low, high + room)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    if epochs.size == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    axes.grid(color=GRID, lw=1)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=INK, lw=1)
    axes.tick_params(colors=INK, labelsize=_LETTERS - 1, width=1, which="both")
    axes.set_xlabel("epoch", size=_LETTERS, color=INK)
    axes.set_ylabel("loss", size=_LETTERS, color=INK)
    line = optional_import("matplotlib.lines", "plot").Line2D
    entries = [line([], [], lw=2.2, **style) for style in named.values()]
    kinds = {validation for validation, _ in losses}
    if kinds == {False, True}:
        entries.append(line([], [], color=INK, lw=2.2, label="training"))
    if True in kinds:
        entries.append(line([], [], color=INK, lw=1.4, ls=_DASHES, label="validation"))
    figure.legend(handles=entries, loc="outside right upper", frameon=False, labelcolor=INK,
                  fontsize=_LETTERS - 1)  # fmt: skip
    return figure_pixels(figure)


def _training_losses(history: Any) -> tuple[np.ndarray, dict[tuple[bool, int], np.ndarray]]:
    """Numbers of the epochs from 1, and their losses by (of validation data, loop), sorted."""
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
    matches = [(_NAME.fullmatch(str(name)), values) for name, values in columns.items()]
    losses = {(m[1] is not None, int(m[2] or 0)): _numbers(m[0], v) for m, v in matches if m}
    if not losses:
        raise ValueError(
            "`history` must hold losses of the names embedding_loss, shift_1_loss, … of one epoch "
            f"at least. Received: {sorted(map(str, columns))}"
        )
    if epochs is None:
        epochs = np.arange(len(next(iter(losses.values()))))
    numbers = _numbers("epoch", epochs)
    sizes = {numbers.size, *(values.size for values in losses.values())}
    if len(sizes) > 1 or not numbers.size:
        raise ValueError(
            "`history` must hold a loss for each epoch, of one epoch at least. "
            f"Received: losses and epochs of the lengths {sorted(sizes)}"
        )
    if not np.isfinite(numbers).all() or not np.isfinite([*losses.values()]).any():
        raise ValueError("`history` must hold a finite loss and number its epochs. Received: none")
    return numbers + 1, dict(sorted(losses.items()))


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
        if any(None in row for row in rows):
            raise csv.Error("rows longer than its first")
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"`history` must be a CSV log. Received: {path}: {error}") from error
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def precision_recall_picture(
    figures: Mapping[str, BoundaryFigures],
    points: Mapping[str, tuple[float, float]] | None = None,
    side: int = 480,
) -> np.ndarray:
    """Draw precision over recall of boundary maps, among lines of equal F-measure.

    A dot on each curve is where its F-measure is best. The key names that F-measure, the ODS, and
    the method, the best one first.

    Args:
        figures: Name and figures of each method, as `boundary_benchmark` gives them.
        points: Names and (recall, precision) of what has no curve, such as people.
        side: Side of the square of the plot in pixels, from 200 to 2000.

    Returns:
        uint8 RGB `(side + 62, side + 92, 3)`.

    Raises:
        ValueError: If there is nothing to draw, a point does not lie in [0, 1], or `side` is out
            of its range.
        ImportError: If matplotlib is missing.

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
    check_integer("side", side, 200, 2000)
    width, height = side + 92, side + 62
    figure = pixel_figure(width, height)
    axes = figure.add_axes((58 / width, 48 / height, side / width, side / height))
    for f in (k / 10 for k in range(1, 10)):
        recalls = np.linspace(f / (2 - f), 1, 200)
        axes.plot(recalls, f * recalls / (2 * recalls - f), color=_EQUAL_F, lw=1)
        axes.text(1.01, f / (2 - f), f"{f:.1f}", color=_POINT, va="center", size=_LETTERS)
    drawn: list[tuple[float, str, Any]] = []
    for index, (name, one) in enumerate(figures.items()):
        color = _CURVES[index % len(_CURVES)]
        measured = (one.recall > 0) & (one.precision > 0)
        (line,) = axes.plot(one.recall[measured], one.precision[measured], color=color, lw=2.5)
        axes.plot(one.ods_recall, one.ods_precision, "o", color=color, ms=8, mec="white",
                  clip_on=False, zorder=4)  # fmt: skip
        drawn.append((one.ods, name, line))
    for name, (recall, precision) in points.items():
        (dot,) = axes.plot(recall, precision, "o", color=_POINT, ms=12, mec="white",
                           clip_on=False, zorder=4)  # fmt: skip
        f = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
        drawn.append((f, name, dot))
    drawn.sort(key=lambda entry: -entry[0])
    axes.legend(
        [artist for *_, artist in drawn],
        [f"[F={f:.3f}] {name}".replace("=0.", "=.") for f, name, _ in drawn],
        loc="lower left", fontsize=_LETTERS, facecolor="white", edgecolor="none", framealpha=1,
        borderaxespad=0.3,
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.tick_params(labelsize=_LETTERS, length=0)
    axes.set_xlabel("Recall", size=_LETTERS)
    axes.set_ylabel("Precision", size=_LETTERS)
    return figure_pixels(figure)
