"""The number of groups that fit on the sphere at a margin."""

from __future__ import annotations

from dataclasses import dataclass

from keras_rpe.margins.arguments import MOST_GROUPS, check_dim, check_margin
from keras_rpe.margins.bounds import TOLERANCE, cap_area, groups_upper_bound
from keras_rpe.margins.known_codes import KNOWN_COSINES
from keras_rpe.margins.spread_points import (
    MOST_SEARCHED,
    found_points,
    largest_similarity,
    search_work,
)

_MOST_WORK = 800_000  # As of `search_work`, for the largest search.


@dataclass(frozen=True)
class Capacity:
    """How many groups fit on the sphere at a margin.

    Attributes:
        groups: So many fit.
        upper_bound: More do not fit.

    Example:
        >>> from keras_rpe.margins import Capacity
        >>> Capacity(groups=32, upper_bound=32).exact
        True
    """

    groups: int
    upper_bound: int

    @property
    def exact(self) -> bool:
        """Whether no more fit than are known to."""
        return self.groups == self.upper_bound


def capacity(dim: int, margin: float) -> Capacity:
    """How many groups fit on the sphere in D dimensions at a margin.

    Exact up to α = ½, and for D = 2. Above, `groups` is the largest number of 2 D, the known best
    arrangements, what caps that cover the sphere ensure, and what a short search
    with the means of `spread_points` finds; `upper_bound` is that of `groups_upper_bound`.

    Args:
        dim: Dimension D of the embedding, from 2 to 65536.
        margin: Margin α of the loss, in [0, 1).

    Returns:
        Both numbers, 10⁹ where they are larger.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Rankin (1955) up to α = ½; Wyner (1965) on caps that cover the sphere.

    Example:
        >>> from keras_rpe.margins import capacity
        >>> capacity(64, 0.5)
        Capacity(groups=128, upper_bound=128)
        >>> capacity(3, 0.1), capacity(3, 0.65)
        (Capacity(groups=2, upper_bound=2), Capacity(groups=8, upper_bound=8))
    """
    check_dim(dim)
    check_margin(margin)
    upper = groups_upper_bound(dim, margin)
    if dim == 2 or margin <= 0.5 + TOLERANCE:
        return Capacity(upper, upper)
    cosine = 2.0 * (margin + TOLERANCE) - 1.0
    known = [n for (d, n), largest in KNOWN_COSINES.items() if d <= dim and largest <= cosine]
    area = cap_area(dim, min(cosine, 1.0 - TOLERANCE))
    covering = int(min(1.0 / area, MOST_GROUPS)) if area > 0.0 else MOST_GROUPS
    groups = min(max([2 * dim, covering, *known]), upper)
    return Capacity(_searched(dim, margin, groups, upper), upper)


def _searched(dim: int, margin: float, fits: int, upper: int) -> int:
    """The largest number up to the upper bound that a bisection of short searches finds."""
    largest = min(upper, MOST_SEARCHED, int((_MOST_WORK / search_work(dim, 1)) ** 0.5))
    too_many = largest + 1
    step = max(1, fits // 4)
    cosine = 2.0 * (margin + TOLERANCE) - 1.0
    while fits < too_many - 1:
        # Longer steps upwards first, as searches for fewer groups take less time.
        tried = min(fits + step, (fits + too_many) // 2) if step else (fits + too_many) // 2
        if largest_similarity(found_points(dim, tried, cosine)) <= margin + TOLERANCE:
            fits, step = tried, 2 * step
        else:
            too_many, step = tried, 0
    return fits
