"""The smallest margin that holds a number of groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import betaincinv

from keras_rpe.margins.arguments import check_dim, check_groups
from keras_rpe.margins.bounds import margin_lower_bound
from keras_rpe.margins.known_codes import KNOWN_COSINES
from keras_rpe.margins.spread_points import MOST_SEARCHED, found_points, largest_similarity


@dataclass(frozen=True)
class Margin:
    """The smallest margin at which a number of groups fits on the sphere.

    Attributes:
        margin: A margin α, in [0, 1], at which they fit.
        lower_bound: A margin below which they do not fit.
        exact: Whether `margin` is known to be the smallest; then both are the same.

    Example:
        >>> from keras_rpe.margins import Margin
        >>> Margin(margin=0.5, lower_bound=0.5, exact=True).margin
        0.5
    """

    margin: float
    lower_bound: float
    exact: bool


def smallest_margin(dim: int, groups: int) -> Margin:
    """The smallest margin α at which N groups fit on the sphere in D dimensions.

    They fit if N unit vectors have similarities s = (1 + cos)/2 of at most α: then the margin loss
    can be 0. Exact are a simplex, ½ (1 - 1 / (N - 1)), for N ≤ D + 1; ½ for N ≤ 2 D (Rankin,
    1955); the regular polygon for D = 2; up to 14 and 24 groups for D = 3 (Tammes' problem), and
    some arrangements for D = 4 to 8. Otherwise `margin` is that of the points of `spread_points`,
    up to 512 groups, and beyond one at which points exist, since those of a set that takes no
    other point cover the sphere with caps (Wyner, 1965).

    Args:
        dim: Dimension D of the embedding, from 2 to 65536.
        groups: Number of groups N, from 1 to 10⁹.

    Returns:
        The margin, a lower bound of it, and whether it is exact.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Kong & Fowlkes (CVPR 2018) relate dimension and margin to points spread on a sphere.

    Example:
        >>> from keras_rpe.margins import smallest_margin
        >>> smallest_margin(16, 32)
        Margin(margin=0.5, lower_bound=0.5, exact=True)
        >>> found = smallest_margin(16, 40)
        >>> round(found.margin, 2), round(found.lower_bound, 2), found.exact
        (0.54, 0.52, False)
    """
    check_dim(dim)
    check_groups(groups)
    bound = margin_lower_bound(dim, groups)
    if dim == 2 or groups <= 2 * dim or (dim, groups) in KNOWN_COSINES:
        return Margin(bound, bound, exact=True)
    if groups <= MOST_SEARCHED:
        return Margin(largest_similarity(found_points(dim, groups)), bound, exact=False)
    return Margin(_covering_margin(dim, groups), bound, exact=False)


def _covering_margin(dim: int, groups: int) -> float:
    """Margin at which a set that takes no other point has at least so many."""
    sine_squared = float(betaincinv((dim - 1) / 2, 0.5, 2.0 / groups))
    return 0.5 + 0.5 * math.sqrt(max(1.0 - sine_squared, 0.0))
