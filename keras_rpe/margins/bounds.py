"""Bounds on the points of a sphere at a margin: what no embedding can do better."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv, comb, roots_jacobi

from keras_rpe.margins.arguments import MOST_GROUPS, check_dim, check_groups, check_margin
from keras_rpe.margins.known_codes import KNOWN_COSINES

TOLERANCE = 1e-9  # Of margins: that much above one still counts as at it.
_MOST_DEGREE = 64  # Of Levenshtein's polynomials; the caps' areas bound what is beyond.


def groups_upper_bound(dim: int, margin: float) -> int:
    """Number of groups that certainly no embedding holds more of at a margin.

    Below α = ½ it is the true number, of a simplex, at ½ as well, 2 D, and above for D = 2. The
    others are the least of Levenshtein's bound, that of the caps' areas, Fejes Tóth's for D = 3,
    and what the known best arrangements imply.

    Args:
        dim: Dimension D of the embedding, at least 2.
        margin: Margin α in [0, 1): the largest similarity s = (1 + cos)/2 of two groups.

    Returns:
        The number, 10⁹ where it is larger.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Rankin (1955); Levenshtein (1979); L. Fejes Tóth (1943).

    Example:
        >>> from keras_rpe.margins import groups_upper_bound
        >>> groups_upper_bound(3, 0.1), groups_upper_bound(24, 0.5), groups_upper_bound(24, 0.55)
        (2, 48, 127)
    """
    check_dim(dim)
    check_margin(margin)
    if abs(margin - 0.5) <= TOLERANCE:
        return 2 * dim
    cosine = 2.0 * (margin + TOLERANCE) - 1.0
    if cosine < 0.0:
        return int(min(dim + 1, 1.0 - 1.0 / cosine))
    if dim == 2:
        # The error of the margin's rounding, as that of the number.
        slack = 1.0 + TOLERANCE + 1e-15 / (1.0 - margin)
        return int(min(slack * 2.0 * math.pi / math.acos(2.0 * margin - 1.0), MOST_GROUPS))
    cosine = min(cosine, 1.0 - TOLERANCE)
    bounds = [float(MOST_GROUPS), levenshtein_bound(dim, cosine), _cap_bound(dim, cosine)]
    if dim == 3:
        # The margin of `fejes_toth_margin`, solved for the number.
        angle = math.asin(0.5 / math.sqrt(margin + TOLERANCE))
        bounds.append(12 * angle / (6 * angle - math.pi) if 6 * angle > math.pi else math.inf)
    bounds += [n - 1 for (d, n), known in KNOWN_COSINES.items() if d == dim and cosine < known]
    return min(math.floor(min(bounds) * (1.0 + TOLERANCE)), MOST_GROUPS)


def margin_lower_bound(dim: int, groups: int) -> float:
    """Margin below which certainly no embedding holds so many groups.

    The true smallest margin for N ≤ 2 D, D = 2 and the known best arrangements; otherwise the
    largest of the bounds of `groups_upper_bound`, solved for the margin.

    Args:
        dim: Dimension D of the embedding, at least 2.
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
    check_dim(dim)
    check_groups(groups)
    if groups <= 2:
        return 0.0
    if groups <= dim + 1:
        return 0.5 - 0.5 / (groups - 1)
    if dim == 2:
        return 0.5 + 0.5 * math.cos(2.0 * math.pi / groups)
    if groups <= 2 * dim:
        return 0.5
    if (dim, groups) in KNOWN_COSINES:
        return 0.5 + 0.5 * KNOWN_COSINES[dim, groups]
    bounds = [_cap_margin(dim, groups), 0.5 + 0.5 * _levenshtein_cosine(dim, groups)]
    if dim == 3:
        bounds.append(fejes_toth_margin(groups))
    # Fewer groups need no larger margin.
    bounds += [0.5 + 0.5 * c for (d, n), c in KNOWN_COSINES.items() if d == dim and n <= groups]
    return max(bounds)


def fejes_toth_margin(groups: int) -> float:
    """Fejes Tóth's bound for D = 3: α ≥ 1 / (4 sin² ω), ω = π N / (6 (N - 2)).

    Reached by 3, 4, 6 and 12 groups: a triangle, a tetrahedron, an octahedron, an icosahedron.

    Args:
        groups: Number of groups N, at least 3.

    Returns:
        Margin in [0, 1).

    Raises:
        ValueError: If the number is out of its range.

    Source:
        L. Fejes Tóth (1943).

    Example:
        >>> from keras_rpe.margins import fejes_toth_margin
        >>> [round(fejes_toth_margin(groups), 3) for groups in (4, 6, 7, 12)]
        [0.333, 0.5, 0.558, 0.724]
    """
    _check_at_least_3(groups)
    return 0.25 / math.sin(math.pi * groups / (6.0 * (groups - 2))) ** 2


def fejes_toth_margin_of_many(groups: int) -> float:
    """The first terms of `fejes_toth_margin` for many groups: 1 - 2π / (√3 N).

    A bound as well, in a plain form, but loose for few groups: four need 0.333, not 0.093.

    Args:
        groups: Number of groups N, at least 3.

    Returns:
        Margin below 1, and below 0 for 3 groups.

    Raises:
        ValueError: If the number is out of its range.

    Source:
        As of `fejes_toth_margin`.

    Example:
        >>> from keras_rpe.margins import fejes_toth_margin_of_many
        >>> [round(fejes_toth_margin_of_many(groups), 3) for groups in (4, 5, 6, 7, 100)]
        [0.093, 0.274, 0.395, 0.482, 0.964]
    """
    _check_at_least_3(groups)
    return 1.0 - 2.0 * math.pi / (math.sqrt(3.0) * groups)


def levenshtein_bound(dim: int, cosine: float) -> float:
    """Levenshtein's bound on the number of points of a sphere.

    It is reached by the simplex, 2 D points on the axes, the icosahedron, the roots of E8 and
    others.

    Args:
        dim: Dimension D, at least 3.
        cosine: Largest inner product of two points, in [-1, 1).

    Returns:
        The bound, not rounded; infinite where it would take polynomials of a degree above 64.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        V. I. Levenshtein (1979), and Handbook of Coding Theory (1998), chapter 6.

    Example:
        >>> from keras_rpe.margins import levenshtein_bound
        >>> round(levenshtein_bound(8, 0.5)), round(levenshtein_bound(24, 0.5))
        (240, 196560)
    """
    check_dim(dim)
    if dim < 3 or not -1.0 <= cosine < 1.0:
        raise ValueError(
            "`dim` must be at least 3 and `cosine` in [-1, 1). "
            f"Received: dim={dim}, cosine={cosine}"
        )
    for degree in range(1, _MOST_DEGREE + 1):
        if cosine <= _end(dim, degree):
            return _levenshtein(dim, degree, cosine)
        if _count_at_end(dim, degree) > MOST_GROUPS:
            break
    return math.inf


def _levenshtein_cosine(dim: int, groups: int) -> float:
    """Largest inner product below which Levenshtein's bound forbids so many points."""
    for degree in range(1, _MOST_DEGREE + 1):
        if groups <= _count_at_end(dim, degree):
            low = _end(dim, degree - 1) if degree > 1 else -1.0
            high = _end(dim, degree)
            if _levenshtein(dim, degree, high) <= groups:  # by rounding alone
                return high
            return float(brentq(_excess, low, high, args=(dim, degree, groups)))
    return _end(dim, _MOST_DEGREE)


def _excess(cosine: float, dim: int, degree: int, groups: int) -> float:
    return _levenshtein(dim, degree, cosine) - groups


def _levenshtein(dim: int, degree: int, cosine: float) -> float:
    """The bound of one degree, which holds from the end of the degree before to its own."""
    k = (degree + 1) // 2
    p = _gegenbauer(dim, k + 1, cosine)
    if degree % 2:
        ratio = (p[k - 1] - p[k]) / ((1.0 - cosine) * p[k])
        return float(comb(k + dim - 3, k - 1) * ((2 * k + dim - 3) / (dim - 1) - ratio))
    ratio = (1.0 + cosine) * (p[k] - p[k + 1]) / ((1.0 - cosine) * (p[k] + p[k + 1]))
    return float(comb(k + dim - 2, k) * ((2 * k + dim - 1) / (dim - 1) - ratio))


def _gegenbauer(dim: int, degree: int, x: float) -> np.ndarray:
    """Gegenbauer polynomials of degrees 0 to `degree` of a sphere in D dimensions, 1 at 1."""
    p = [1.0, x]
    for k in range(1, degree):
        p.append(((2 * k + dim - 2) * x * p[k] - k * p[k - 1]) / (k + dim - 2))
    return np.array(p)


def _end(dim: int, degree: int) -> float:
    """The inner product up to which the bound of that degree holds."""
    a = (dim - 3) / 2
    if degree % 2:
        return float(roots_jacobi((degree + 1) // 2, a + 1, a)[0][-1])
    return float(roots_jacobi(degree // 2, a + 1, a + 1)[0][-1])


def _count_at_end(dim: int, degree: int) -> float:
    """The bound there, of Delsarte, Goethals & Seidel (1977)."""
    k = degree // 2 + 1
    if degree % 2:
        return float(comb(dim + k - 1, dim - 1) + comb(dim + k - 2, dim - 1))
    return float(2 * comb(dim + k - 2, dim - 1))


def cap_area(dim: int, cosine: float) -> float:
    """Share of the sphere within an angle of at most 90° of a point, from the angle's cosine."""
    return 0.5 * float(betainc((dim - 1) / 2, 0.5, 1.0 - cosine**2))


def _cap_bound(dim: int, cosine: float) -> float:
    """Caps of half the smallest angle do not overlap."""
    area = cap_area(dim, math.sqrt((1.0 + cosine) / 2.0))
    return 1.0 / area if area > 0.0 else math.inf


def _cap_margin(dim: int, groups: int) -> float:
    return 1.0 - float(betaincinv((dim - 1) / 2, 0.5, 2.0 / groups))


def _check_at_least_3(groups: int) -> None:
    check_groups(groups)
    if groups < 3:
        raise ValueError(f"`groups` must be at least 3. Received: groups={groups}")
