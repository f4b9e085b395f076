"""Embeddings and their paths on the sphere, by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.optional_import import optional_import
from keras_rpe.visualization.overlay import check_labels, instance_colors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GRAY, GRID = "#20242c", "#5a6478", "#e4e7ec"
DPI = 72  # One point of matplotlib's lengths is then one pixel.


def pixel_figure(width: int, height: int) -> Figure:
    """An empty white figure of this many pixels, which leaves pyplot and its state alone."""
    figure: Figure = optional_import("matplotlib.figure", "plot").Figure(
        figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white"
    )
    optional_import("matplotlib.backends.backend_agg", "plot").FigureCanvasAgg(figure)
    return figure


def figure_pixels(figure: Figure) -> np.ndarray:
    """Draw a figure as uint8 RGB `(height, width, 3)`."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


# What is behind the ball is drawn pale on it, before its lines and what is in front.
_BALL, _BEHIND, _LINES, _FRONT = 1, 2, 3, 4
_PALE = 0.36  # Opacity of what is behind.
# The ball, and the dots at its rim, then fill a square plot; matplotlib draws it off the middle by
# this share of the plot.
_ZOOM, _OFF = 1.543, 0.0135
_LIGHT = np.array([-0.45, 0.6, 0.66])
_DARK_COLOR, _BRIGHT_COLOR = np.array([0.846, 0.866, 0.904]), np.array([0.99, 0.994, 1.0])
_BACKGROUND = (0.55, 0.57, 0.6)
_MAX_PICTURE = 20_000

View = tuple[float, float]


def sphere_scatter(
    *embeddings: Any,
    labels: Any = None,
    titles: Sequence[str] | None = None,
    view: View | None = None,
    side: int = 320,
) -> np.ndarray:
    """Draw three-dimensional embeddings as dots on the unit sphere, a sphere for each of them.

    Points that nearly coincide are one dot, whose area grows with the square root of their number,
    so that groups stay visible after mean shift has moved their points together. The sphere is
    half transparent: dots on the far side are pale. All spheres are seen from one side.

    Args:
        *embeddings: Unit vectors, each `(..., 3)` of one shape: the embedding of an image before
            and after each loop of mean shift, for example.
        labels: Integers of the points' shape, shared by all spheres; each instance has the color
            that it has in `overlay_instances`, and 0, the background, is gray. `None`: a point has
            the color that `embedding_colors` gives it.
        titles: A title for each sphere, or `None`.
        view: From where the spheres are seen, degrees (azimuth, elevation) with the third axis
            upwards; `None`: from where the least is hidden.
        side: Side of the square of a sphere in pixels, from 100 to 4000, of all spheres at most
            20,000.

    Returns:
        uint8 RGB `(side + strip, spheres · side, 3)`, where the strip of titles is 9 % of the side
        high.

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
    points, shape = _checked_points("embeddings", embeddings, 1, (3,))
    check_integer("side", side, 100, max(100, min(4000, _MAX_PICTURE // len(points))))
    names = None if titles is None else [str(title) for title in titles]
    if names is not None and len(names) != len(points):
        raise ValueError(
            f"`titles` must be one for each of the {len(points)} embeddings. "
            f"Received: {len(names)} titles"
        )
    chosen = _checked_view(view)
    shared = None if labels is None else _label_colors(labels, shape)
    dots = [_merged(x, np.clip((x + 1) / 2, 0, 1) if shared is None else shared) for x in points]
    if chosen is None:
        places, _, shares = (np.concatenate(parts) for parts in zip(*dots))
        chosen = _view_of(places, shares**0.5)
    width, height = len(points) * side, side + (round(0.09 * side) if names else 0)
    figure = pixel_figure(width, height)
    for index, one in enumerate(dots):
        axes = add_ball(figure, (index / len(points), 0, side / width, side / height), chosen, side)
        _draw_dots(axes, one, one[0] @ _directions(chosen)[2] >= 0, side)
        if names:
            figure.text(
                (index + 0.5) / len(points), side / height, names[index],
                ha="center", va="bottom", size=0.055 * side, color=INK,
            )  # fmt: skip
    return figure_pixels(figure)


def trajectory_picture(
    loops: Any,
    labels: Any = None,
    max_paths: int = 300,
    view: View | None = None,
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
        labels: Integers of the points' shape, `(...)`; each group has the color that it has in
            `overlay_instances`, and 0, the background, is gray. `None`: one color.
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
    points, shape = _checked_points("loops", loops, 2, (2, 3))
    groups = np.zeros(points.shape[1], "int64")
    colors = np.tile((0.0, 0.45, 0.7), (groups.size, 1))
    if labels is not None:
        colors = _label_colors(labels, shape)
        groups = np.ravel(labels)
    check_integer("max_paths", max_paths)
    check_integer("seed", seed, 0)
    check_integer("side", side, 150, 4000)
    chosen = _checked_view(view)
    if chosen is None and points.shape[-1] == 3:
        ends = _merged(points[[0, -1]].reshape(-1, 3), np.tile(colors, (2, 1)))
        chosen = _view_of(ends[0], ends[2] ** 0.5)

    count, key = len(points) - 1, round(0.085 * side)
    height = side + key
    figure = pixel_figure(side, height)
    box = np.array([0, key / height, 1, side / height])  # Of the plot, above the key.
    extent, eye = 1.0, np.zeros(points.shape[-1])
    if chosen is not None and points.shape[-1] == 3:
        axes, eye = add_ball(figure, box, chosen, side), _directions(chosen)[2]
    elif _is_unit(points):
        axes = _add_rings(figure, box, count, side)
    else:
        axes, extent = _add_plane(figure, box, points, side)
    paths = _some(groups, max_paths, seed)
    _draw_paths(axes, points[:, paths], colors[paths], eye, side)
    starts = points[0, paths]
    _scatter(
        axes, _placed(axes, starts, 0), starts @ eye >= 0, s=(0.013 * side) ** 2, c="white",
        edgecolors=colors[paths], linewidths=0.0025 * side,
    )  # fmt: skip
    places, shades, shares = _merged(points[-1], colors, extent)
    _draw_dots(axes, (_placed(axes, places, count), shades, shares), places @ eye >= 0, side)
    marker = optional_import("matplotlib.lines", "plot").Line2D
    after = f"after {count} loop{'s' if count > 1 else ''}"
    start_style = {"ms": 0.018 * side, "mfc": "white", "mew": 0.003 * side, "label": "start"}
    figure.legend(
        handles=[
            marker([], [], marker="o", ls="", mec=GRAY, **style)
            for style in (start_style, {"ms": 0.032 * side, "mfc": GRAY, "label": after})
        ],
        loc="center", bbox_to_anchor=(0.5, key / 2 / height), ncols=2, frameon=False,
        fontsize=0.036 * side, labelcolor=INK, handletextpad=0.2,
    )  # fmt: skip
    return figure_pixels(figure)


def _add_rings(figure: Figure, box: np.ndarray, loops: int, side: float) -> Any:
    """Add a plot with a ring for each loop, or each few loops, the last one outermost."""
    left, bottom, width, height = box
    inner = (left + 0.05 * width, bottom + 0.05 * height, 0.9 * width, 0.9 * height)
    axes: Any = figure.add_axes(inner, projection="polar")
    axes.set_rlim(0, loops)
    axes.set_rorigin(-3 * loops / 7)
    axes.set(xticks=[], yticks=np.arange(loops, -1, -math.ceil(loops / 12)), yticklabels=[])
    axes.grid(color=GRAY, alpha=0.6, lw=0.002 * side)
    axes.spines[:].set(color=GRAY, lw=0.0035 * side)
    return axes


def _add_plane(
    figure: Figure, box: np.ndarray, points: np.ndarray, side: float
) -> tuple[Any, float]:
    """Add a plot of a square of the plane, and return half of its side too."""
    middle = (points.min(axis=(0, 1)) + points.max(axis=(0, 1))) / 2
    extent = 0.54 * float(np.ptp(points, axis=(0, 1)).max())
    extent = extent if extent > 1e-12 * max(1.0, float(np.abs(middle).max())) else 1.0
    left, bottom, width, height = box
    inner = (left + 0.13 * width, bottom + 0.08 * height, 0.84 * width, 0.84 * height)
    (x0, y0), (x1, y1) = middle - extent, middle + extent
    axes: Any = figure.add_axes(inner, xlim=(x0, x1), ylim=(y0, y1), axisbelow=True)
    axes.grid(color=GRID, lw=0.003 * side)
    axes.tick_params(labelsize=0.032 * side, labelcolor=INK, length=0)
    axes.spines[:].set(color=GRAY, lw=0.003 * side)
    return axes, extent


def _placed(axes: Any, points: np.ndarray, loop: float) -> np.ndarray:
    """Where a plot has points after a loop: on the ball, at an angle and a ring, or as they are."""
    if axes.name == "3d":
        return points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-9)
    if axes.name == "polar":
        return np.stack([np.arctan2(points[:, 1], points[:, 0]), np.full(len(points), loop)], -1)
    return points


def add_ball(figure: Figure, box: Any, view: View, side: float) -> Any:
    """Add a square three-dimensional plot of this side in pixels with the unit ball."""
    left, bottom, width, height = box
    moved = (left - _OFF * width, bottom - _OFF * height, width, height)
    axes: Any = figure.add_axes(moved, projection="3d", computed_zorder=False)
    axes.view_init(elev=view[1], azim=view[0])
    axes.set_proj_type("ortho")
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=_ZOOM)
    axes.set_axis_off()
    directions = _directions(view)
    # The half that is seen, from its middle to its rim.
    turn, tilt = np.meshgrid(np.linspace(0, 2 * np.pi, 91), np.linspace(0, np.pi / 2, 25))
    seen = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)], -1)
    half = seen @ directions
    brightness = np.clip(0.35 + 0.65 * (seen @ _LIGHT / np.linalg.norm(_LIGHT)), 0, 1)[..., None]
    color = _DARK_COLOR + brightness * (_BRIGHT_COLOR - _DARK_COLOR)
    axes.plot_surface(
        *np.moveaxis(half, -1, 0), rstride=1, cstride=1, shade=False, linewidth=0,
        facecolors=color, antialiased=False, zorder=_BALL,
    )  # fmt: skip
    axes.plot(*half[-1].T, color=GRAY, lw=0.0026 * side, zorder=_LINES)
    # Meridians and parallels, 30° apart.
    turn, rise = np.meshgrid(np.linspace(0, 2 * np.pi, 181), np.linspace(-1, 1, 91) * np.pi / 2)
    grid = np.stack([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)])
    front = np.tensordot(directions[2], grid, 1) > 0
    for shown, alpha in ((~front, 0.35 * _PALE), (front, 0.35)):
        axes.plot_wireframe(
            *np.where(shown, grid, np.nan), rstride=15, cstride=15, color=GRAY, alpha=alpha,
            linewidth=0.0017 * side, zorder=_LINES,
        )  # fmt: skip
    return axes


def _directions(view: View) -> np.ndarray:
    """The directions to the right, up, and towards the eye, `(3, 3)`, a row each."""
    azimuth, elevation = np.radians(view)
    c, s, up, out = np.cos(azimuth), np.sin(azimuth), np.sin(elevation), np.cos(elevation)
    return np.array([[-s, c, 0.0], [-up * c, -up * s, out], [out * c, out * s, up]])


def _view_of(points: np.ndarray, weights: np.ndarray) -> View:
    """A view that hides little of the points `(n, 3)`, which matter by their weights `(n,)`."""
    views = [(float(a), e) for e in (20.0, -20.0, 40.0, -40.0, 60.0, -60.0)
             for a in range(-180, 180, 15)]  # fmt: skip
    depth = points @ np.stack([_directions(view)[2] for view in views], axis=1)
    # Half the radius in front of the middle, a point is seen as well as can be.
    seen = weights @ np.clip(depth, 0.0, 0.5)
    return views[int(np.argmax(seen + 1e-3 * (weights @ depth)))]


Dots = tuple[np.ndarray, np.ndarray, np.ndarray]


def _merged(points: np.ndarray, colors: np.ndarray, extent: float = 1.0) -> Dots:
    """Dots for points of nearly one place and color: their places, colors and shares of all."""
    cells = [np.floor(points / (0.02 * extent)), np.floor(colors * 16)]
    _, inverse, counts = np.unique(
        np.concatenate(cells, axis=-1), axis=0, return_inverse=True, return_counts=True
    )

    def means(values: np.ndarray) -> np.ndarray:
        sums = [np.bincount(inverse.reshape(-1), column, counts.size) for column in values.T]
        return np.stack(sums, axis=-1) / counts[:, None]

    return means(points), means(colors), counts / len(points)


def _draw_dots(axes: Any, dots: Dots, front: np.ndarray, side: float) -> None:
    """Draw dots with white edges, the large ones first."""
    order = np.argsort(-dots[2], kind="stable")
    places, colors, shares = (part[order] for part in dots)
    diameters = 2 * side * np.maximum(0.0052, 0.045 * shares**0.25)
    _scatter(axes, places, front[order], s=diameters**2, c=colors,
             edgecolors=np.ones_like(colors), linewidths=0.07 * diameters)  # fmt: skip


def _scatter(axes: Any, places: np.ndarray, front: np.ndarray, **style: Any) -> None:
    """Scatter points behind and in front of the ball, styled one by one where that is an array."""
    if axes.name == "3d":
        style["depthshade"] = False
    for shown, zorder in ((~front, _BEHIND), (front, _FRONT)):
        own = {k: v[shown] if isinstance(v, np.ndarray) else v for k, v in style.items()}
        if zorder == _BEHIND:
            own["alpha"] = _PALE
        if shown.any():
            axes.scatter(*places[shown].T, zorder=zorder + 0.5, clip_on=False, **own)


def _draw_paths(
    axes: Any, points: np.ndarray, colors: np.ndarray, eye: np.ndarray, side: float
) -> None:
    """Draw lines between the loops, the later the stronger."""
    loops = len(points) - 1
    # A step is drawn as several lines, which bend with the sphere; fewer if there are many loops.
    lines = max(1, min(8, 400 // loops))
    steps = np.arange(loops * lines + 1) / lines
    before = np.minimum(steps.astype(int), loops - 1)
    part = (steps - before)[:, None, None]
    between = (1 - part) * points[before] + part * points[before + 1]
    track = np.stack([_placed(axes, x, step) for x, step in zip(between, steps)])
    if axes.name == "polar":
        track[..., 0] = np.unwrap(track[..., 0], axis=0)
    segments = np.stack([track[:-1], track[1:]], axis=2)
    rgba = np.empty((*segments.shape[:2], 4))
    rgba[..., :3], rgba[..., 3] = colors, np.linspace(0.3, 0.85, len(steps) - 1)[:, None]
    front = between @ eye >= 0
    front = front[:-1] & front[1:]
    rgba[~front, 3] *= _PALE
    if axes.name == "3d":
        kind = optional_import("mpl_toolkits.mplot3d.art3d", "plot").Line3DCollection
    else:
        kind = optional_import("matplotlib.collections", "plot").LineCollection
    for shown, zorder in ((~front, _BEHIND), (front, _FRONT)):
        style = {"colors": rgba[shown], "linewidths": 0.0032 * side, "zorder": zorder}
        if shown.any():
            axes.add_collection(kind(segments[shown], capstyle="butt", **style), autolim=False)


def _some(groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Indices of some points, evenly from all groups as far as they have them."""
    order = np.random.default_rng(seed).permutation(groups.size)
    by_group = order[np.argsort(groups[order], kind="stable")]
    _, starts, counts = np.unique(groups[by_group], return_index=True, return_counts=True)
    rank = np.arange(groups.size) - starts.repeat(counts)
    return by_group[np.argsort(rank, kind="stable")[:most]]


def _checked_points(
    name: str, arrays: Any, at_least: int, dims: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Arrays of points as one `(arrays, n, D)`, and their shape without the last axis."""
    try:
        points = np.asarray(arrays, dtype="float64")
        received = f"shape {points.shape}"
    except ValueError:
        points, received = np.empty(0), "arrays of different shapes"
    if (
        points.ndim < 3
        or len(points) < at_least
        or points.size == 0
        or points.shape[-1] not in dims
    ):
        raise ValueError(
            f"`{name}` must be {at_least} or more arrays of points (..., D), all of one shape, "
            f"D = {' or '.join(map(str, dims))}. Received: {received}"
        )
    if not (np.abs(points) <= 1e12).all():  # A comparison that NaN fails.
        raise ValueError(f"`{name}` must be in [-1e12, 1e12]. Received: values that are not")
    if points.shape[-1] == 3 and not _is_unit(points):
        raise ValueError(
            f"`{name}` must have length 1 where D = 3, within 0.01. Received: other vectors"
        )
    return points.reshape(len(points), -1, points.shape[-1]), points.shape[1:-1]


def _is_unit(points: np.ndarray) -> bool:
    """Whether all vectors have length 1, as float16 and an epsilon of a normalization leave it."""
    return bool((np.abs(np.linalg.norm(points, axis=-1) - 1) <= 0.01).all())


def _label_colors(labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    ids = check_labels(labels, shape).reshape(-1)
    return np.where(ids[:, None] == 0, _BACKGROUND, instance_colors(ids))


def _checked_view(view: Any) -> View | None:
    if view is None:
        return None
    if np.shape(view) != (2,):
        raise ValueError(
            f"`view` must be None or degrees (azimuth, elevation). Received: view={view!r}"
        )
    azimuth, elevation = view
    return (
        check_number("view", azimuth, "(-inf, inf)"),
        check_number("view", elevation, "[-90, 90]"),
    )
