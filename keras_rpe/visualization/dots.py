"""Many points as few dots."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from keras_rpe.visualization.sphere_drawing import BEHIND, FRONT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
            >>> from keras_rpe.visualization.dots import Dots
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
            >>> from keras_rpe.visualization.dots import Dots
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
            >>> from keras_rpe.visualization.agg_figure import agg_figure, figure_pixels
            >>> from keras_rpe.visualization.dots import Dots
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
