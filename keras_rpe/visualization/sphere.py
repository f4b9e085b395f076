"""Embeddings and their paths on the sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np

from keras_rpe.optional_import import optional_import
from keras_rpe.visualization.embeddings import check_integer
from keras_rpe.visualization.overlay import instance_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
        >>> from keras_rpe.visualization.sphere import agg_figure, figure_pixels
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


# Nearer to the middle of the disc than this, a point is seen as well as can be.
_WELL_SEEN = 0.5


class SphereView(NamedTuple):
    """Where the sphere is looked at from, by parallel rays.

    Attributes:
        azimuth: Degrees around the third axis, from the first axis towards the second.
        elevation: Degrees above the plane of the first two axes, in [-90, 90].
    """

    azimuth: float
    elevation: float

    @classmethod
    def of(cls, points: np.ndarray, weights: np.ndarray) -> Self:
        """Choose a view that hides few points.

        Args:
            points: Unit vectors `(n, 3)`.
            weights: How much each matters, `(n,)`.

        Returns:
            The view.

        Example:
            >>> import numpy as np
            >>> from keras_rpe.visualization.sphere import SphereView
            >>> SphereView.of(np.array([[0.0, 0.8, 0.6]]), np.ones(1)).azimuth
            90.0
        """
        views = [
            cls(float(azimuth), float(elevation))
            for elevation in (20, -20, 40, -40, 60, -60)
            for azimuth in range(-180, 180, 15)
        ]
        depth = points @ np.stack([view.axes()[2] for view in views], axis=1)
        seen = weights @ np.clip(depth, 0.0, _WELL_SEEN)
        # Of those that see all of them well, the one in whose middle they lie.
        return views[int(np.argmax(seen + 1e-3 * (weights @ depth)))]

    def axes(self) -> np.ndarray:
        """The directions to the right, up, and towards the eye, `(3, 3)`, a row each.

        Example:
            >>> from keras_rpe.visualization.sphere import SphereView
            >>> SphereView(0, 0).axes().tolist()
            [[-0.0, 1.0, 0.0], [-0.0, -0.0, 1.0], [1.0, 0.0, 0.0]]
        """
        azimuth, elevation = math.radians(self.azimuth), math.radians(self.elevation)
        c, s = math.cos(azimuth), math.sin(azimuth)
        up, out = math.sin(elevation), math.cos(elevation)
        return np.array([[-s, c, 0.0], [-up * c, -up * s, out], [out * c, out * s, up]])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place points on the disc.

        Args:
            points: `(..., 3)`.

        Returns:
            Places `(..., 2)`, right and up, and nearness to the eye `(...)`, positive for points
            of the front half.

        Example:
            >>> import numpy as np
            >>> from keras_rpe.visualization.sphere import SphereView
            >>> places, nearness = SphereView(90, 0).project(np.array([0.0, 0.6, 0.8]))
            >>> places.round(6).tolist(), round(float(nearness), 6)
            ([0.0, 0.8], 0.6)
        """
        seen = points @ self.axes().T
        return seen[..., :2], seen[..., 2]


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
        >>> from keras_rpe.visualization.sphere import agg_figure, figure_pixels
        >>> from keras_rpe.visualization.sphere import draw_sphere
        >>> from keras_rpe.visualization.sphere import SphereView
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


# Points of nearly one place and one colour become one dot.
_CELL, _COLOR_CELL = 0.02, 1 / 16


class Dots(NamedTuple):
    """Dots that stand for points.

    Attributes:
        places: The mean of their points, `(n, D)`.
        colors: The mean of their colours, `(n, 3)`.
        shares: What share of all points each stands for, `(n,)`, in (0, 1].
    """

    places: np.ndarray
    colors: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, colors: np.ndarray, extent: float = 1.0) -> Dots:
        """Merge points that are nearly the same.

        Args:
            points: `(n, D)`, n at least 1.
            colors: Their colours, `(n, 3)` in [0, 1].
            extent: Half of the width that the points spread over.

        Returns:
            The dots, those of the largest share first.

        Example:
            >>> import numpy as np
            >>> from keras_rpe.visualization.sphere import Dots
            >>> points = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
            >>> Dots.of(points, np.zeros((3, 3))).places.tolist()
            [[0.0, 1.0], [1.0, 0.0]]
        """
        cells = [np.floor(points / (_CELL * extent)), np.floor(colors / _COLOR_CELL)]
        key = np.concatenate(cells, axis=-1).astype("int64")
        _, inverse, counts = np.unique(key, axis=0, return_inverse=True, return_counts=True)
        inverse = inverse.reshape(-1)
        order = np.argsort(-counts, kind="stable")

        def means(values: np.ndarray) -> np.ndarray:
            sums = [np.bincount(inverse, column, counts.size) for column in values.T]
            return (np.stack(sums, axis=-1) / counts[:, None])[order]

        return cls(means(points), means(colors), counts[order] / len(points))

    def areas(self, side: float) -> np.ndarray:
        """The sizes that matplotlib's `scatter` takes, which grow with the root of the share.

        Args:
            side: Side of the plot in pixels.

        Returns:
            Squares of the diameters in pixels, `(n,)`.

        Example:
            >>> import numpy as np
            >>> from keras_rpe.visualization.sphere import Dots
            >>> areas = Dots.of(np.array([[0.0], [1.0], [1.0]]), np.zeros((3, 3))).areas(400)
            >>> bool(areas[0] > areas[1])
            True
        """
        radius = side * np.maximum(0.0052, 0.045 * self.shares**0.25)
        return (2 * radius) ** 2

    def draw(self, axes: Axes, places: np.ndarray, front: np.ndarray, side: float) -> None:
        """Draw the dots into a square plot, with white edges.

        Args:
            axes: The plot.
            places: Where each is drawn, `(n, 2)`.
            front: Whether it is before the ball of `draw_sphere`, `(n,)`.
            side: Side of the plot in pixels.

        Example:
            >>> import numpy as np
            >>> from keras_rpe.visualization.sphere import agg_figure, figure_pixels
            >>> from keras_rpe.visualization.sphere import Dots
            >>> figure, dots = agg_figure(50, 50), Dots.of(np.zeros((1, 2)), np.zeros((1, 3)))
            >>> dots.draw(figure.add_axes((0, 0, 1, 1)), dots.places, np.array([True]), 50)
            >>> figure_pixels(figure)[25, 25].tolist()
            [0, 0, 0]
        """
        areas = self.areas(side)
        for shown, zorder in ((~front, BEHIND), (front, FRONT)):
            axes.scatter(
                places[shown, 0], places[shown, 1], areas[shown], self.colors[shown],
                edgecolors="white", linewidths=0.1 * areas[shown] ** 0.5, zorder=zorder + 0.5,
                clip_on=False,
            )  # fmt: skip


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
        >>> from keras_rpe.visualization.sphere import agg_figure
        >>> from keras_rpe.visualization.sphere import square_axes
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
        >>> from keras_rpe.visualization.sphere import unit_points
        >>> unit_points(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    return points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-9)


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
        >>> from keras_rpe.visualization.sphere import PlaneStage
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


_RING_STAGE_LINE = "#8a93a5"
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
        >>> from keras_rpe.visualization.sphere import RingStage
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
                *(self._radius(loop) * circle), color=_RING_STAGE_LINE, zorder=BEHIND,
                lw=0.0032 * side if loop == self.loops else 0.0018 * side,
            )  # fmt: skip

    def _radius(self, loop: float) -> float:
        return _INNERMOST + (1 - _INNERMOST) * loop / self.loops


@dataclass(frozen=True)
class SphereStage:
    """The sphere; points are moved onto it.

    Attributes:
        view: From where it is seen.
        extent: Half of its width.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.sphere import SphereStage
        >>> from keras_rpe.visualization.sphere import SphereView
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


# Of a unit vector; float16 and an epsilon of a normalization change it by less.
_TOLERANCE = 0.01
_BACKGROUND = np.array([0.55, 0.57, 0.6])
_MAX_PICTURE = 20_000


def is_unit(points: np.ndarray) -> bool:
    """Whether all vectors have length 1.

    Args:
        points: `(..., D)`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.sphere import is_unit
        >>> is_unit(np.eye(3)), is_unit(np.ones((4, 3)))
        (True, False)
    """
    return bool(np.abs(np.linalg.norm(points, axis=-1) - 1).max(initial=0.0) <= _TOLERANCE)


def label_array(labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Check labels of points.

    Args:
        labels: Integers of the given shape.
        shape: Shape of the points without their last axis.

    Returns:
        int64 `(n,)`.

    Raises:
        ValueError: If they are not.

    Example:
        >>> from keras_rpe.visualization.sphere import label_array
        >>> label_array([[1, 2]], (1, 2)).tolist()
        [1, 2]
    """
    array = np.asarray(labels)
    if array.shape != shape or array.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers of the shape {shape} of the points. "
            f"Received: labels of shape {array.shape} and dtype {array.dtype}"
        )
    return array.reshape(-1).astype("int64")


def label_colors(labels: np.ndarray) -> np.ndarray:
    """Colours of instances, those of `overlay_instances`, and gray for 0, the background.

    Args:
        labels: Integers `(n,)`.

    Returns:
        RGB `(n, 3)` in [0, 1].

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.sphere import label_colors
        >>> label_colors(np.array([0])).tolist()
        [[0.55, 0.57, 0.6]]
    """
    ids, inverse = np.unique(labels, return_inverse=True)
    colors = np.where(ids[:, None] == 0, _BACKGROUND, instance_colors(ids))
    return colors[inverse.reshape(-1)]


def color_array(colors: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Check given colours of points.

    Args:
        colors: RGB of the given shape and a last axis of 3: uint8, or floats in [0, 1].
        shape: Shape of the points without their last axis.

    Returns:
        float64 `(n, 3)` in [0, 1].

    Raises:
        ValueError: If they are not.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization.sphere import color_array
        >>> color_array(np.array([[255, 0, 51]], "uint8"), (1,)).tolist()
        [[1.0, 0.0, 0.2]]
    """
    array = np.asarray(colors)
    of_type = array.dtype == np.uint8 or array.dtype.kind == "f"
    if array.shape != (*shape, 3) or not of_type:
        raise ValueError(
            f"`colors` must be RGB of the shape {(*shape, 3)}, as uint8 or floats. "
            f"Received: colors of shape {array.shape} and dtype {array.dtype}"
        )
    flat = array.reshape(-1, 3).astype("float64") / (255 if array.dtype == np.uint8 else 1)
    # A comparison that NaN fails.
    if not ((flat >= 0) & (flat <= 1)).all():
        raise ValueError("`colors` must be in [0, 1] if they are floats. Received: other values")
    return flat


def check_view(view: Any) -> SphereView | None:
    """Check from where the sphere is seen.

    Args:
        view: Degrees of azimuth and of elevation in [-90, 90], or `None`.

    Returns:
        The view, or `None`.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> from keras_rpe.visualization.sphere import check_view
        >>> check_view((30, 20))
        SphereView(azimuth=30.0, elevation=20.0)
    """
    if view is None:
        return None
    try:
        azimuth, elevation = (float(value) for value in view)
    except (TypeError, ValueError):
        azimuth = elevation = np.nan
    if not (np.isfinite(azimuth) and -90 <= elevation <= 90):
        raise ValueError(
            "`view` must be None or degrees (azimuth, elevation), the elevation in [-90, 90]. "
            f"Received: view={view!r}"
        )
    return SphereView(azimuth, elevation)


def check_side(side: Any, low: int, count: int = 1, name: str = "side") -> None:
    """Check a side of a plot in pixels.

    Args:
        side: The side.
        low: The least that it may be.
        count: How many plots lie along one side of the picture.
        name: Name of the argument.

    Raises:
        ValueError: If it is not an integer, or out of its range.

    Example:
        >>> from keras_rpe.visualization.sphere import check_side
        >>> check_side(300, 100)
    """
    high = max(low, min(4000, _MAX_PICTURE // count))
    check_integer(name, side, low, high)


_TITLE_SHARE = 0.09


def sphere_scatter(
    *embeddings: Any,
    labels: Any = None,
    colors: Any = None,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    view: tuple[float, float] | None = None,
    side: int = 320,
) -> np.ndarray:
    """Draw three-dimensional embeddings as dots on the unit sphere, a sphere for each of them.

    Points that nearly coincide are one dot, whose area grows with the square root of their number,
    so that groups stay visible after mean shift has moved their points together. The sphere is
    half transparent: dots on the far side are pale. All spheres are seen from one side.

    Args:
        *embeddings: Unit vectors, each `(..., 3)` of one shape: the embedding of an image before
            and after each loop of mean shift, for example.
        labels: Integers of the points' shape, shared by all spheres; each instance has the colour
            that it has in `overlay_instances`, and 0, the background, is gray.
        colors: Colours instead of labels, `(..., 3)`, uint8 RGB or floats in [0, 1]. With neither,
            a point has the colour that `embedding_colors` gives it.
        titles: A title for each sphere, or `None`.
        columns: Spheres in a row; `None`: all of them.
        view: From where the spheres are seen, degrees (azimuth, elevation) with the third axis
            upwards; `None`: from where the least is hidden.
        side: Side of the square of a sphere in pixels, from 100 to 4000.

    Returns:
        uint8 RGB `(rows · (side + title), columns · side, 3)`, where a strip of titles is 9 % of
        the side high.

    Raises:
        ValueError: If an argument is not as above.
        ImportError: If matplotlib is missing.

    Source: Kong & Fowlkes (CVPR 2018), section 3, which embeds pixels on the sphere.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization import sphere_scatter
        >>> before = np.random.default_rng(0).normal(size=(8, 8, 3))
        >>> before /= np.linalg.norm(before, axis=-1, keepdims=True)
        >>> labels = np.arange(64).reshape(8, 8) // 16
        >>> sphere_scatter(before, np.sign(before) / 3**0.5, labels=labels, side=200).shape
        (200, 400, 3)
    """
    points, shape = _unit_points(embeddings)
    if labels is not None and colors is not None:
        raise ValueError("`colors` must be None if labels are given. Received: both")
    if columns is not None:
        check_integer("columns", columns, 1)
    columns = min(columns or len(points), len(points))
    rows = math.ceil(len(points) / columns)
    check_side(side, 100, max(rows, columns))
    names = None if titles is None else [str(title) for title in titles]
    if names is not None and len(names) != len(points):
        raise ValueError(
            f"`titles` must be one for each of the {len(points)} embeddings. "
            f"Received: {len(names)} titles"
        )
    chosen = check_view(view)
    shared = None
    if labels is not None:
        shared = label_colors(label_array(labels, shape))
    elif colors is not None:
        shared = color_array(colors, shape)
    dots = [Dots.of(x, np.clip((x + 1) / 2, 0, 1) if shared is None else shared) for x in points]
    if chosen is None:
        places = np.concatenate([one.places for one in dots])
        chosen = SphereView.of(places, np.concatenate([one.shares for one in dots]) ** 0.5)
    strip = round(_TITLE_SHARE * side) if names else 0
    width, height = columns * side, rows * (side + strip)
    figure = agg_figure(width, height)
    for index, one in enumerate(dots):
        row, column = divmod(index, columns)
        bottom = height - (row + 1) * (side + strip)
        box = (column * side / width, bottom / height, side / width, side / height)
        axes = figure.add_axes(box)
        draw_sphere(axes, chosen, side)
        places, nearness = chosen.project(one.places)
        one.draw(axes, places, nearness >= 0, side)
        if names:
            figure.text(
                (column + 0.5) * side / width, (bottom + side) / height, names[index],
                ha="center", va="bottom", size=0.055 * side, color="#20242c",
            )  # fmt: skip
    return figure_pixels(figure)


def _unit_points(embeddings: Sequence[Any]) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """Check embeddings, and return their points `(n, 3)` and their shape without the last axis."""
    arrays = [np.asarray(embedding, dtype="float64") for embedding in embeddings]
    shape = arrays[0].shape if arrays else ()
    same = all(x.shape == shape for x in arrays)
    if not same or len(shape) < 2 or shape[-1] != 3 or 0 in shape:
        raise ValueError(
            "`embeddings` must be at least one array of unit vectors (..., 3), all of one shape. "
            f"Received: shapes {[x.shape for x in arrays]}"
        )
    if not all(np.isfinite(x).all() and is_unit(x) for x in arrays):
        raise ValueError(
            "`embeddings` must be vectors of length 1, within 0.01. Received: other vectors"
        )
    return [x.reshape(-1, 3) for x in arrays], shape[:-1]


_KEY_SHARE = 0.085
_PLAIN = np.array([0.0, 0.45, 0.7])
# A step is drawn as so many lines, which bend with the sphere, but fewer if there are many steps.
_TRAJECTORY_PICTURE_LINES, _MOST_LINES = 8, 400
_FARTHEST = 1e12
_FIRST_OPACITY, _LAST_OPACITY = 0.3, 0.85


def trajectory_picture(
    loops: Any,
    labels: Any = None,
    max_paths: int = 300,
    view: tuple[float, float] | None = None,
    side: int = 480,
    seed: int = 0,
) -> np.ndarray:
    """Draw the paths of points over the loops of mean shift, from small rings to dots.

    Three-dimensional unit vectors move on the sphere, whose far side is pale, and two-dimensional
    ones outwards over rings, one for each loop, at their angle; other two-dimensional points move
    in the plane. Points that end at nearly one place share a dot there, whose area grows with the
    square root of their number.

    Args:
        loops: The points before mean shift and after each loop, `(loops + 1, ..., D)`, D = 2 or
            unit vectors with D = 3, or a list of such arrays; of one loop at least.
        labels: Integers of the points' shape, `(...)`; each group has the colour that it has in
            `overlay_instances`, and 0, the background, is gray. `None`: one colour.
        max_paths: Paths at most, at least 1; of more points, random ones are taken, as many of
            each group as it has and its share allows.
        view: From where the sphere is seen, as in `sphere_scatter`.
        side: Side of the square plot in pixels, from 150 to 4000.
        seed: Seed of that choice, at least 0.

    Returns:
        uint8 RGB `(side + key, side, 3)`, where the key below is 8.5 % of the side high.

    Raises:
        ValueError: If an argument is not as above.
        ImportError: If matplotlib is missing.

    Source: Kong & Fowlkes (CVPR 2018), section 4, on mean shift on the sphere.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.visualization import trajectory_picture
        >>> angle = np.random.default_rng(0).normal(size=(2, 50)) * 0.3 + [[0.0], [2.0]]
        >>> middle = angle.mean(axis=1, keepdims=True)
        >>> angles = np.stack([middle + (angle - middle) * shrunk for shrunk in (1, 0.3, 0.01)])
        >>> loops = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        >>> trajectory_picture(loops, labels=np.arange(2).repeat(50).reshape(2, 50) + 1).shape
        (521, 480, 3)
    """
    points, shape = _checked_points(loops)
    groups = np.zeros(points.shape[1], "int64")
    if labels is not None:
        groups = label_array(labels, shape)
    check_integer("max_paths", max_paths, 1)
    check_integer("seed", seed, 0)
    check_side(side, 150)
    chosen = check_view(view)
    colors = label_colors(groups) if labels is not None else np.tile(_PLAIN, (groups.size, 1))
    stage = _stage(points, colors, chosen)
    key = round(_KEY_SHARE * side)
    figure = agg_figure(side, side + key)
    axes = figure.add_axes((0, key / (side + key), 1, side / (side + key)))
    stage.draw(axes, side)
    paths = _some(groups, max_paths, seed)
    _draw_paths(axes, stage, points[:, paths], colors[paths], side)
    _draw_ends(axes, stage, points, colors, paths, side)
    _draw_key(figure.add_axes((0, 0, 1, key / (side + key))), len(points) - 1, side)
    return figure_pixels(figure)


def _checked_points(loops: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Check points, and return them as `(loops + 1, n, D)` with their shape of one loop."""
    try:
        array = np.asarray(loops, dtype="float64")
    except ValueError:
        shapes = [np.shape(one) for one in loops]
        raise ValueError(
            f"`loops` must hold arrays of one shape. Received: shapes {shapes}"
        ) from None
    if array.ndim < 3 or array.shape[0] < 2 or array.size == 0 or array.shape[-1] not in (2, 3):
        raise ValueError(
            "`loops` must be points (loops + 1, ..., D) of one loop at least, D = 2 or 3. "
            f"Received: shape={array.shape}"
        )
    # A comparison that NaN fails.
    if not (np.abs(array) <= _FARTHEST).all():
        raise ValueError(
            f"`loops` must be in [-{_FARTHEST:g}, {_FARTHEST:g}]. Received: values that are not"
        )
    if array.shape[-1] == 3 and not is_unit(array):
        raise ValueError(
            "`loops` of D = 3 must be vectors of length 1, within 0.01. Received: other vectors"
        )
    return array.reshape(array.shape[0], -1, array.shape[-1]), array.shape[1:-1]


def _stage(points: np.ndarray, colors: np.ndarray, view: SphereView | None) -> PathStage:
    if points.shape[-1] == 3:
        if view is None:
            dots = Dots.of(points[[0, -1]].reshape(-1, 3), np.tile(colors, (2, 1)))
            view = SphereView.of(dots.places, dots.shares**0.5)
        return SphereStage(view)
    if is_unit(points):
        return RingStage(len(points) - 1)
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    extent = 0.54 * float((high - low).max())
    return PlaneStage((low + high) / 2, extent if extent > 1e-12 else 1.0)


def _some(groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of some points, evenly from all groups as far as they have them."""
    order = np.random.default_rng(seed).permutation(groups.size)
    by_group = order[np.argsort(groups[order], kind="stable")]
    _, starts, counts = np.unique(groups[by_group], return_index=True, return_counts=True)
    rank = np.arange(groups.size) - starts.repeat(counts)
    return by_group[np.argsort(rank, kind="stable")[:most]]


def _draw_paths(
    axes: Axes, stage: PathStage, points: np.ndarray, colors: np.ndarray, side: float
) -> None:
    """Draw lines between the loops, the later the stronger."""
    loops = len(points) - 1
    lines = max(1, min(_TRAJECTORY_PICTURE_LINES, _MOST_LINES // loops))
    steps = np.arange(loops * lines + 1) / lines
    places, front = [], []
    for step in steps:
        before = min(int(step), loops - 1)
        part = step - before
        between = (1 - part) * points[before] + part * points[before + 1]
        place, near = stage.place(between, step)
        places.append(place)
        front.append(near)
    track, near = np.stack(places), np.stack(front)
    segments = np.stack([track[:-1], track[1:]], axis=2)
    opacity = np.linspace(_FIRST_OPACITY, _LAST_OPACITY, len(steps) - 1)[:, None, None]
    rgba = np.empty((*segments.shape[:2], 4))
    rgba[..., :3], rgba[..., 3:] = colors, opacity
    seen = near[:-1] & near[1:]
    for shown, zorder in ((~seen, BEHIND), (seen, FRONT)):
        collection = optional_import("matplotlib.collections", "plot").LineCollection(
            segments[shown], colors=rgba[shown], linewidths=0.0032 * side, capstyle="butt",
            zorder=zorder, snap=False,
        )  # fmt: skip
        axes.add_collection(collection)


def _draw_ends(
    axes: Axes, stage: PathStage, points: np.ndarray, colors: np.ndarray,
    paths: np.ndarray, side: float,
) -> None:  # fmt: skip
    """Mark where the paths start, and where all points end."""
    places, near = stage.place(points[0][paths], 0)
    for shown, zorder in ((~near, BEHIND), (near, FRONT)):
        axes.scatter(
            places[shown, 0], places[shown, 1], _start_area(side), "white",
            edgecolors=colors[paths][shown], linewidths=0.0025 * side, zorder=zorder + 0.2,
        )  # fmt: skip
    dots = Dots.of(points[-1], colors, stage.extent)
    dots.draw(axes, *stage.place(dots.places, len(points) - 1), side)


def _start_area(side: float) -> float:
    return (0.013 * side) ** 2


def _draw_key(axes: Axes, loops: int, side: float) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    gray = "#5a6478"
    text: dict[str, Any] = {"size": 0.036 * side, "color": "#20242c", "va": "center_baseline"}
    axes.scatter(
        0.22, 0.55, 2 * _start_area(side), "white", edgecolors=gray, linewidths=0.003 * side
    )
    axes.text(0.25, 0.55, "start", **text)
    axes.scatter(0.47, 0.55, (0.032 * side) ** 2, gray)
    axes.text(0.5, 0.55, f"after {loops} loop{'s' if loops > 1 else ''}", **text)
