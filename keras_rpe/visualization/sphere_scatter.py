"""Embeddings as points on the sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_rpe.visualization.agg_figure import agg_figure, figure_pixels
from keras_rpe.visualization.dots import Dots
from keras_rpe.visualization.integer_argument import check_integer
from keras_rpe.visualization.point_arguments import (
    check_side,
    check_view,
    color_array,
    is_unit,
    label_array,
    label_colors,
)
from keras_rpe.visualization.sphere_drawing import draw_sphere
from keras_rpe.visualization.sphere_view import SphereView

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
