"""The paths that points take in mean shift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rpe.optional_import import optional_import
from keras_rpe.visualization.agg_figure import agg_figure, figure_pixels
from keras_rpe.visualization.dots import Dots
from keras_rpe.visualization.integer_argument import check_integer
from keras_rpe.visualization.path_stage import PathStage
from keras_rpe.visualization.plane_stage import PlaneStage
from keras_rpe.visualization.point_arguments import (
    check_side,
    check_view,
    is_unit,
    label_array,
    label_colors,
)
from keras_rpe.visualization.ring_stage import RingStage
from keras_rpe.visualization.sphere_drawing import BEHIND, FRONT
from keras_rpe.visualization.sphere_stage import SphereStage
from keras_rpe.visualization.sphere_view import SphereView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KEY_SHARE = 0.085
_PLAIN = np.array([0.0, 0.45, 0.7])
# A step is drawn as so many lines, which bend with the sphere, but fewer if there are many steps.
_LINES, _MOST_LINES = 8, 400
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
    lines = max(1, min(_LINES, _MOST_LINES // loops))
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
