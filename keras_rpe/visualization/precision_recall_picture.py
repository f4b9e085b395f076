"""The picture of precision over recall."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from keras_rpe.metrics import BoundaryFigures

# What is left of the square, above, right and below, and the size of letters, in pixels.
_LEFT, _TOP, _RIGHT, _BOTTOM = 58, 14, 34, 48
_LETTERS = 14
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
    _draw_key(plot, sorted(key, key=lambda entry: -entry[0]))
    return np.asarray(plot.image.resize(plot.size, Image.Resampling.LANCZOS))


class _Plot:
    """A square of recall and precision from 0 to 1; places are pixels of the picture."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.size = _LEFT + side + _RIGHT, _TOP + side + _BOTTOM
        width, height = self.size
        self.image = Image.new("RGB", (width * _SCALE, height * _SCALE), "white")
        self._draw = ImageDraw.Draw(self.image)
        self._font = ImageFont.load_default(_LETTERS * _SCALE)

    def at(self, recall: npt.ArrayLike, precision: npt.ArrayLike) -> list[Place]:
        """The places of values, which lie in [0, 1]."""
        x = _LEFT + self.side * np.atleast_1d(recall)
        y = _TOP + self.side * (1 - np.atleast_1d(precision))
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
        length, height = round(self.length(text)) + 1, 2 * _LETTERS
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
    plot.box((left, _TOP), (plot.side, plot.side), outline="black")


def _draw_key(plot: _Plot, key: list[tuple[float, str, str]]) -> None:
    """Write F-measure and name of each method in the lower left, where curves seldom are."""
    texts = [f"[F={f:.3f}] {name}".replace("=0.", "=.") for f, name, _ in key]
    step, line = 1.4 * _LETTERS, 18
    x, bottom = plot.at(0.02, 0.02)[0]
    top = bottom - step * len(key)
    width = line + 12 + math.ceil(max(plot.length(text) for text in texts))
    plot.box((x, top), (width, bottom - top))
    for row, (text, (_, _, color)) in enumerate(zip(texts, key)):
        y = top + step * (row + 0.5)
        plot.line([(x, y), (x + line, y)], color, 3)
        plot.write((x + line + 8, y), text, "lm")
