"""How many groups fit on the sphere at a margin: the embedding's dimension and the loss's margin.

Similarities are the calibrated ones of the loss, s = (1 + cos)/2. Plain NumPy and SciPy.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import helmert
from scipy.optimize import brentq, minimize
from scipy.special import betainc, betaincinv, comb, roots_jacobi

from keras_rpe.arguments import check_integer, check_number

__all__ = [
    "Capacity",
    "Margin",
    "capacity",
    "groups_upper_bound",
    "loss_floor",
    "margin_lower_bound",
    "smallest_margin",
    "spread_points",
]

_MOST_DIM = 65_536  # As of the embedding head.
_MOST_GROUPS = 10**9  # More than any image has pixels.
_TOLERANCE = 1e-9  # A similarity that much above a margin still counts as at it.

# Largest inner product of two points of the best arrangements that are known, by dimension and
# number of points. Dimension 3 is Tammes' problem: Schütte & van der Waerden (1951) for 7 to 9
# points, Danzer (1986) for 10 and 11, Fejes Tóth (1943) for 12, Musin & Tarasov (2012, 2015) for 13
# and 14, Robinson (1961) for 24. Dimension 4: Bachoc & Vallentin (2009) for 10, de Laat,
# Leijenhorst & de Muinck Keizer (2024) for 24, Andreev (1999) for 120.
_KNOWN_COSINES = {
    (3, 7): 0.210138312730603,  # a root of 3c³ - 9c² - 3c + 1
    (3, 8): (math.sqrt(8) - 1) / 7,
    (3, 9): 1 / 3,
    (3, 10): 0.404394325216251,  # a root of 7c³ - 4c² - 2c + 1
    (3, 11): 1 / math.sqrt(5),
    (3, 12): 1 / math.sqrt(5),
    (3, 13): 0.542636486829639,
    (3, 14): 0.563950300360505,
    (3, 24): 0.723078468333509,
    (4, 10): 1 / 6,
    (4, 24): 1 / 2,
    (4, 120): (1 + math.sqrt(5)) / 4,
}


@dataclass(frozen=True)
class Capacity:
    """How many groups fit on the sphere at a margin.

    Attributes:
        groups: This many are known to fit.
        upper_bound: More than this do not fit.

    Example:
        >>> from keras_rpe.margins import Capacity
        >>> Capacity(groups=32, upper_bound=32).exact
        True
    """

    groups: int
    upper_bound: int

    @property
    def exact(self) -> bool:
        """Whether `groups` is known to be the largest number that fits."""
        return self.groups == self.upper_bound


@dataclass(frozen=True)
class Margin:
    """The smallest margin at which a number of groups fits on the sphere.

    Attributes:
        margin: A margin α, in [0, 1], at which they are known to fit.
        lower_bound: A margin below which they do not fit.

    Example:
        >>> from keras_rpe.margins import Margin
        >>> Margin(margin=0.5, lower_bound=0.5).exact
        True
    """

    margin: float
    lower_bound: float

    @property
    def exact(self) -> bool:
        """Whether `margin` is known to be the smallest."""
        return self.margin == self.lower_bound


def capacity(dim: int, margin: float) -> Capacity:
    """How many groups fit on the sphere in D dimensions at a margin.

    Exact up to α = ½, and for D = 2. Above, `groups` is the largest number of 2 D, a few known best
    arrangements, what caps that cover the sphere ensure, and what short searches find (see
    `spread_points`); `upper_bound` is that of `groups_upper_bound`.

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
    upper = groups_upper_bound(dim, margin)
    if dim == 2 or margin <= 0.5 + _TOLERANCE:
        return Capacity(upper, upper)
    cosine = 2.0 * (margin + _TOLERANCE) - 1.0
    area = _cap_area(dim, min(cosine, 1.0 - _TOLERANCE))
    covering = int(min(1.0 / area, _MOST_GROUPS)) if area > 0.0 else _MOST_GROUPS
    known = [n for (d, n), largest in _KNOWN_COSINES.items() if d <= dim and largest <= cosine]
    fits = min(max([2 * dim, covering, *known]), upper)
    more = range(fits + 1, min(upper, int((_SHORT_WORK / (dim + 16)) ** 0.5)) + 1)
    fits += bisect_right(more, cosine, key=lambda n: _largest_cosine(_found_points(dim, n, 1)))
    return Capacity(fits, upper)


def groups_upper_bound(dim: int, margin: float) -> int:
    """Number of groups that no embedding can hold more of at a margin.

    It is the true number up to α = ½ and for D = 2; otherwise it is the least of several bounds.

    Args:
        dim: Dimension D of the embedding, from 2 to 65536.
        margin: Margin α in [0, 1): the largest similarity s = (1 + cos)/2 of two groups.

    Returns:
        The number, 10⁹ where it is larger.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Rankin (1955); Levenshtein (1979); L. Fejes Tóth (1943) for D = 3.

    Example:
        >>> from keras_rpe.margins import groups_upper_bound
        >>> groups_upper_bound(3, 0.1), groups_upper_bound(24, 0.5), groups_upper_bound(24, 0.55)
        (2, 48, 127)
    """
    check_integer("dim", dim, 2, _MOST_DIM)
    check_number("margin", margin, "[0, 1)")
    if abs(margin - 0.5) <= _TOLERANCE:
        return 2 * dim
    cosine = 2.0 * (margin + _TOLERANCE) - 1.0
    if cosine < 0.0:
        return int(min(dim + 1, 1.0 - 1.0 / cosine))
    if dim == 2:
        # The error of the margin's rounding, as that of the number.
        slack = 1.0 + _TOLERANCE + 1e-15 / (1.0 - margin)
        return int(min(slack * 2.0 * math.pi / math.acos(2.0 * margin - 1.0), _MOST_GROUPS))
    cosine = min(cosine, 1.0 - _TOLERANCE)
    bounds = [n - 1 for (d, n), known in _KNOWN_COSINES.items() if d == dim and cosine < known]
    most = min(_most_points(dim, cosine), _MOST_GROUPS)
    return int(min([most * (1.0 + _TOLERANCE), _MOST_GROUPS, *bounds]))


def smallest_margin(dim: int, groups: int) -> Margin:
    """The smallest margin α at which N groups fit on the sphere in D dimensions.

    They fit if N unit vectors have similarities s = (1 + cos)/2 of at most α: then the margin loss
    can be 0. Exact are a simplex, ½ (1 - 1 / (N - 1)), for N ≤ D + 1; ½ for N ≤ 2 D (Rankin,
    1955); the regular polygon for D = 2; up to 14 and 24 groups for D = 3 (Tammes' problem), and a
    few numbers for D = 4. Otherwise `margin` is that of the points of `spread_points`, up to 512
    groups, and beyond one at which points exist, since those of a set that takes no other point
    cover the sphere with caps (Wyner, 1965).

    Args:
        dim: Dimension D of the embedding, from 2 to 65536.
        groups: Number of groups N, from 1 to 10⁹.

    Returns:
        The margin and a lower bound of it.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Kong & Fowlkes (CVPR 2018) relate dimension and margin to points spread on a sphere.

    Example:
        >>> from keras_rpe.margins import smallest_margin
        >>> smallest_margin(16, 32)
        Margin(margin=0.5, lower_bound=0.5)
        >>> found = smallest_margin(16, 40)
        >>> round(found.margin, 2), round(found.lower_bound, 2), found.exact
        (0.54, 0.52, False)
    """
    bound = margin_lower_bound(dim, groups)
    if dim == 2 or groups <= 2 * dim or (dim, groups) in _KNOWN_COSINES:
        return Margin(bound, bound)
    if groups <= _MOST_SEARCHED:
        found = 0.5 + 0.5 * _largest_cosine(_found_points(dim, groups))
        return Margin(max(found, bound), bound)
    # Caps of this size around the points of a set that takes no other point cover the sphere.
    sine_squared = float(betaincinv((dim - 1) / 2, 0.5, 2.0 / groups))
    return Margin(0.5 + 0.5 * math.sqrt(max(1.0 - sine_squared, 0.0)), bound)


def margin_lower_bound(dim: int, groups: int) -> float:
    """Margin below which no embedding can hold this many groups.

    The true smallest margin for N ≤ 2 D, for D = 2 and where `smallest_margin` is exact; otherwise
    the bounds of `groups_upper_bound`, solved for the margin.

    Args:
        dim: Dimension D of the embedding, from 2 to 65536.
        groups: Number of groups N, from 1 to 10⁹.

    Returns:
        Margin in [0, 1].

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        As of `groups_upper_bound`.

    Example:
        >>> from keras_rpe.margins import margin_lower_bound
        >>> [round(margin_lower_bound(16, groups), 3) for groups in (3, 32, 64)]
        [0.25, 0.5, 0.551]
    """
    check_integer("dim", dim, 2, _MOST_DIM)
    check_integer("groups", groups, 1, _MOST_GROUPS)
    if groups <= 2:
        return 0.0
    if groups <= dim + 1:
        return 0.5 - 0.5 / (groups - 1)
    if dim == 2:
        return 0.5 + 0.5 * math.cos(2.0 * math.pi / groups)
    if groups <= 2 * dim:
        return 0.5
    # Fewer groups need no larger margin.
    cosines = [c for (d, n), c in _KNOWN_COSINES.items() if d == dim and n <= groups]

    def log_excess(cosine: float) -> float:
        return math.log(min(_most_points(dim, cosine), 1e300) / groups)

    if (dim, groups) not in _KNOWN_COSINES:
        cosines.append(brentq(log_excess, 0.0, 1.0 - 1e-15, xtol=1e-14))
    return 0.5 + 0.5 * max(cosines)


def loss_floor(groups: int, margin: float) -> float:
    """The value below which the margin loss of Q groups cannot fall: (½ - α) - (1 - α) / Q.

    The inner products of all ordered pairs of Q unit vectors, each with itself included, sum up to
    the squared length of the vectors' sum, so those of different ones to -Q at least, whatever the
    dimension; where α is less than ½, many groups cannot all be that far apart. A loss that stops
    at the floor is optimal. It is reached where the vectors sum up to 0 and no similarity is
    below α: by a simplex, in D ≥ Q - 1 dimensions, and by other arrangements in fewer. Where the
    floor is 0, the loss still stops above it if the groups do not fit (see `smallest_margin`).

    Args:
        groups: Number of groups Q of an image, at least 1; the background is one where it is an
            instance of the loss.
        margin: Margin α of the loss, in [0, 1).

    Returns:
        The floor of the second term of `CosineMarginLoss` with `power=1`, equal weights of all
        pairs of groups and no neighborhood. Where each group has one embedding, the first term is
        0, and the floor is that of the whole loss.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        The loss is that of Kong & Fowlkes (CVPR 2018), section 3, equation 2.

    Example:
        >>> from keras_rpe.margins import loss_floor
        >>> round(loss_floor(10, 0.1), 6), loss_floor(2, 0.1), loss_floor(100, 0.5)
        (0.31, 0.0, 0.0)
    """
    check_integer("groups", groups, 1, _MOST_GROUPS)
    check_number("margin", margin, "[0, 1)")
    return max(0.0, (0.5 - margin) - (1.0 - margin) / groups)


def spread_points(dim: int, groups: int) -> np.ndarray:
    """Unit vectors that are far apart: embeddings for this many groups.

    Up to 2 D points, and any number for D = 2, are arranged in the best way there is. The rest are
    found from random points by descent on the energy log Σ exp(p x_i·x_j) / p with growing p, from
    several starts of a fixed seed.

    Args:
        dim: Dimension D of the embedding, from 2 to 65536.
        groups: Number of points N, at most 512 where they must be searched for.

    Returns:
        Unit vectors `(N, D)`, float64, the same at every call on one machine. The similarity of
        the two that are closest is the `margin` of `smallest_margin`, within 1e-4.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Rankin (1955) up to 2 D points.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.margins import spread_points
        >>> points = spread_points(3, 6)
        >>> float(np.triu(points @ points.T, 1).max())
        0.0
    """
    check_integer("dim", dim, 2, _MOST_DIM)
    check_integer("groups", groups, 1, _MOST_SEARCHED if 2 < dim < groups / 2 else _MOST_GROUPS)
    if dim * groups > 2**24:
        raise ValueError(
            f"`dim` times `groups` must be at most {2**24}. Received: dim={dim}, groups={groups}"
        )
    if groups == 1:
        return np.eye(1, dim)
    if groups <= dim + 1:
        # The corners of the simplex e_1 … e_N in N - 1 coordinates of its hyperplane.
        corners = helmert(groups).T / math.sqrt(1.0 - 1.0 / groups)
        return np.pad(corners, ((0, 0), (0, dim + 1 - groups)))
    if dim == 2:
        angles = 2 * np.pi * np.arange(groups) / groups
        return np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    if groups <= 2 * dim:
        return np.concatenate([np.eye(dim), -np.eye(dim)])[:groups]
    return _found_points(dim, groups).copy()


_MOST_SEARCHED = 512  # Groups that a search takes; the time grows with their square.
_SEED = 20_180_618
# All starts, and a short search: the number of groups squared, times the dimension and what the
# power of an inner product costs.
_WORK, _SHORT_WORK = 1_500_000, 800_000
_EXPONENTS = (4.0, 16.0, 64.0, 256.0, 2048.0, 16_384.0)


@lru_cache(maxsize=64)
def _found_points(dim: int, groups: int, starts: int = 12) -> np.ndarray:
    """The best points of a search."""
    random = np.random.default_rng(_SEED)
    work = groups**2 * (dim + 16)
    goal = _KNOWN_COSINES.get((dim, groups), -1.0) + 1e-4
    if goal > 0.0:  # Some of the known optima are found seldom.
        starts *= 5
    options = {"maxiter": int(np.clip(1.2e8 / work, 8, 100)), "maxcor": 20}
    found = []
    for start in range(max(1, min(starts, _WORK // work))):
        points = _unit(random.normal(size=(groups, dim)))
        # Low exponents lead to symmetric optima, and high ones to others.
        for exponent in _EXPONENTS[start % 3 :]:
            end = minimize(
                _energy,
                points.ravel(),
                (points.shape, exponent),
                "L-BFGS-B",
                jac=True,
                options=options,
            )
            points = _unit(end.x.reshape(points.shape))
        found.append(points)
        if _largest_cosine(points) <= goal:
            break
    best = min(found, key=_largest_cosine)
    best.setflags(write=False)
    return best


def _energy(flat: np.ndarray, shape: tuple[int, int], exponent: float) -> tuple[float, np.ndarray]:
    """A smooth maximum of the inner products of two points, and its gradient."""
    vectors = flat.reshape(shape)
    x = _unit(vectors)
    cosines = x @ x.T
    np.fill_diagonal(cosines, -np.inf)
    largest = cosines.max()
    weights = np.exp(exponent * (cosines - largest))
    total = weights.sum()
    pull = 2.0 / total * (weights @ x)
    pull -= (pull * x).sum(axis=1, keepdims=True) * x
    pull /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return largest + np.log(total) / exponent, pull.ravel()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _largest_cosine(points: np.ndarray) -> float:
    cosines = points @ points.T
    np.fill_diagonal(cosines, -1.0)
    return float(np.clip(cosines.max(), -1.0, 1.0))


# Bounds on the number of points whose inner products are at most a cosine ≥ 0, for D ≥ 3.


def _most_points(dim: int, cosine: float) -> float:
    """The least of the bounds, not rounded."""
    # Caps of half the smallest angle do not overlap.
    area = _cap_area(dim, math.sqrt((1.0 + cosine) / 2.0))
    bounds = [_levenshtein_bound(dim, cosine), 1.0 / area if area > 0.0 else math.inf]
    if dim == 3:  # Fejes Tóth's: s ≥ 1 / (4 sin² ω), ω = π N / (6 (N - 2)).
        angle = math.asin(math.sqrt(0.5 / (1.0 + cosine)))
        bounds.append(12 * angle / (6 * angle - math.pi) if 6 * angle > math.pi else math.inf)
    return min(bounds)


def _cap_area(dim: int, cosine: float) -> float:
    """Share of the sphere within an angle of at most 90° of a point, from the angle's cosine."""
    return 0.5 * float(betainc((dim - 1) / 2, 0.5, 1.0 - cosine**2))


def _levenshtein_bound(dim: int, cosine: float) -> float:
    """Levenshtein's bound (Handbook of Coding Theory, 1998, chapter 6).

    Infinite where it would be above 10⁹, or take polynomials of a degree above 64: there the area
    of caps bounds the number.
    """
    for degree in range(1, 65):
        end, count_at_end = _levenshtein_end(dim, degree)
        if cosine <= end:
            break
        if count_at_end > _MOST_GROUPS:
            return math.inf
    else:
        return math.inf
    k = (degree + 1) // 2
    p = [1.0, cosine]  # Gegenbauer polynomials of a sphere in D dimensions, 1 at 1.
    for j in range(1, k + 1):
        p.append(((2 * j + dim - 2) * cosine * p[j] - j * p[j - 1]) / (j + dim - 2))
    if degree % 2:
        ratio = (p[k - 1] - p[k]) / ((1.0 - cosine) * p[k])
        return float(comb(k + dim - 3, k - 1) * ((2 * k + dim - 3) / (dim - 1) - ratio))
    ratio = (1.0 + cosine) * (p[k] - p[k + 1]) / ((1.0 - cosine) * (p[k] + p[k + 1]))
    return float(comb(k + dim - 2, k) * ((2 * k + dim - 1) / (dim - 1) - ratio))


@lru_cache(maxsize=4096)
def _levenshtein_end(dim: int, degree: int) -> tuple[float, float]:
    """The inner product up to which the bound of a degree holds, and the bound there."""
    a, k = (dim - 3) / 2, degree // 2 + 1
    if degree % 2:
        count = comb(dim + k - 1, dim - 1) + comb(dim + k - 2, dim - 1)
        return float(roots_jacobi((degree + 1) // 2, a + 1, a)[0][-1]), float(count)
    count = 2 * comb(dim + k - 2, dim - 1)
    return float(roots_jacobi(degree // 2, a + 1, a + 1)[0][-1]), float(count)
