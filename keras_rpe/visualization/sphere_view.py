"""The unit sphere, seen from a side of it."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np

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
            >>> from keras_rpe.visualization.sphere_view import SphereView
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
            >>> from keras_rpe.visualization.sphere_view import SphereView
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
            >>> from keras_rpe.visualization.sphere_view import SphereView
            >>> places, nearness = SphereView(90, 0).project(np.array([0.0, 0.6, 0.8]))
            >>> places.round(6).tolist(), round(float(nearness), 6)
            ([0.0, 0.8], 0.6)
        """
        seen = points @ self.axes().T
        return seen[..., :2], seen[..., 2]
