"""Points that are as far apart on the sphere as known or found."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from keras_rpe.margins.arguments import check_dim, check_groups
from keras_rpe.margins.known_codes import KNOWN_COSINES, known_points

MOST_SEARCHED = 512  # Groups that a search takes; the time grows with their square.
_MOST_NUMBERS = 2**24  # Of the points that are known without a search.
_SEED = 20_180_618
_WORK = 1_500_000  # As of `search_work`, of all restarts of a search.
_MOST_RESTARTS = 12
_MOST_RESTARTS_TO_KNOWN = 60  # They end when it is reached, mostly at the first ones.
# Exponents of the energy that searches start with. Few points have many optima, and each start
# leads to others of them: a low exponent to symmetric ones.
_FIRST_EXPONENTS = (4.0, 64.0, 16.0, 8.0)
_LAST_EXPONENT = 4096.0
_GROWTH = 4.0
_MOST_POLISHED = 100  # Coordinates.


def spread_points(dim: int, groups: int) -> np.ndarray:
    """Unit vectors that are far apart: embeddings for so many groups.

    Up to 2 D points, any number for D = 2, and some others are known constructions, the best
    there are. The rest are found from random points by descent on the energy
    log Σ exp(p x_i·x_j) / p with growing p, from several starts of a fixed seed.

    Args:
        dim: Dimension D of the embedding, at least 2.
        groups: Number of points N, at most 512 where they must be searched for.

    Returns:
        Unit vectors `(N, D)`, float64, the same at every call on one machine.
        `largest_similarity` of them is the `margin` of `smallest_margin`, apart from rounding.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Rankin (1955) up to 2 D points; known best arrangements as in `smallest_margin`.

    Example:
        >>> from keras_rpe.margins import largest_similarity, spread_points
        >>> round(largest_similarity(spread_points(8, 240)), 6)
        0.75
    """
    check_dim(dim)
    check_groups(groups)
    if dim * groups > _MOST_NUMBERS:
        raise ValueError(
            f"`dim` times `groups` must be at most {_MOST_NUMBERS}. "
            f"Received: dim={dim}, groups={groups}"
        )
    known = known_points(dim, groups)
    if known is not None:
        return known
    if groups > MOST_SEARCHED:
        raise ValueError(
            f"`groups` must be at most {MOST_SEARCHED}, or at most 2 · `dim`. "
            f"Received: groups={groups}, dim={dim}"
        )
    return found_points(dim, groups).copy()


def largest_similarity(points: npt.ArrayLike) -> float:
    """Calibrated cosine similarity s = (1 + cos)/2 of the two points that are closest.

    Args:
        points: Vectors `(N, D)`, finite and not 0, of any length.

    Returns:
        In [0, 1]; 0 for one point.

    Raises:
        ValueError: If they are no such vectors.

    Source:
        The similarity is that of Kong & Fowlkes (CVPR 2018), section 3, equation 1.

    Example:
        >>> from keras_rpe.margins import largest_similarity
        >>> largest_similarity([[1, 0], [0, 1], [-1, 0]])
        0.5
    """
    points = np.asarray(points, "float64")
    if points.ndim != 2 or not len(points) or not np.isfinite(points).all():
        raise ValueError(
            "`points` must be finite numbers of shape (N, D), N at least 1. "
            f"Received: an array of shape {points.shape}"
        )
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    if not lengths.min() > 0.0:
        raise ValueError("`points` must not be 0. Received: a vector of length 0")
    return 0.5 + 0.5 * _largest_cosine(points / lengths)


@lru_cache(maxsize=64)
def found_points(dim: int, groups: int, enough: float | None = None) -> np.ndarray:
    """The best points `(N, D)` of a search, or a part of a known arrangement that is better.

    Args:
        dim: Dimension D, at least 2.
        groups: Number of points N, more than 2 D.
        enough: Largest inner product at which a short search, from one start, may end. A whole
            search, without it, gives no worse result.
    """
    random = np.random.default_rng(_SEED)
    best = _part_of_known(dim, groups)
    least = np.inf if best is None else _largest_cosine(best)
    restarts = max(1, min(_MOST_RESTARTS, _WORK // search_work(dim, groups)))
    goal = -1.0
    if enough is not None:
        restarts, goal = 1, enough
    elif (dim, groups) in KNOWN_COSINES:
        restarts, goal = _MOST_RESTARTS_TO_KNOWN, KNOWN_COSINES[dim, groups] + 1e-9
    for k in range(restarts):
        if least <= goal:
            break
        start = _unit(random.normal(size=(groups, dim)))
        points = _anneal(start, _FIRST_EXPONENTS[k % len(_FIRST_EXPONENTS)], goal)
        cosine = _largest_cosine(points)
        if points.size <= _MOST_POLISHED and goal < cosine < least + 0.01:
            points = _polish(points)
            cosine = _largest_cosine(points)
        if cosine < least:
            best, least = points, cosine
    assert best is not None
    best.setflags(write=False)
    return best


def search_work(dim: int, groups: int) -> int:
    """What one step of a search costs: all inner products, and a power of each."""
    return groups**2 * (dim + 16)


def _part_of_known(dim: int, groups: int) -> np.ndarray | None:
    """The first points of a larger arrangement that is known, in as many dimensions or less."""
    codes = [
        (cosine, d, n)
        for (d, n), cosine in KNOWN_COSINES.items()
        if d <= dim and n > groups and d > 3
    ]
    if not codes:
        return None
    _, d, n = min(codes)
    known = known_points(d, n)
    assert known is not None
    return np.pad(known[:groups], [(0, 0), (0, dim - d)])


def _anneal(points: np.ndarray, exponent: float, goal: float) -> np.ndarray:
    """Descend with growing exponents, until the largest inner product is at most the goal."""
    iterations = int(np.clip(1.2e8 / search_work(*points.shape[::-1]), 8, 100))
    best, least = points, np.inf
    while exponent <= _LAST_EXPONENT and least > goal:
        found = minimize(
            _energy,
            points.ravel(),
            args=(points.shape, exponent),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": iterations, "maxcor": 20},
        )
        points = _unit(found.x.reshape(points.shape))
        cosine = _largest_cosine(points)
        if cosine < least:
            best, least = points, cosine
        exponent *= _GROWTH
    return best


def _energy(flat: np.ndarray, shape: tuple[int, int], exponent: float) -> tuple[float, np.ndarray]:
    """A smooth maximum of the inner products of two points, and its gradient."""
    vectors = flat.reshape(shape)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    x = vectors / lengths
    cosines = x @ x.T
    np.fill_diagonal(cosines, -np.inf)
    largest = cosines.max()
    weights = np.exp(exponent * (cosines - largest))
    total = weights.sum()
    pull = 2.0 / total * (weights @ x)
    pull -= (pull * x).sum(axis=1, keepdims=True) * x
    return largest + np.log(total) / exponent, (pull / lengths).ravel()


def _polish(points: np.ndarray) -> np.ndarray:
    """Minimise the largest inner product itself, which few points allow to all digits."""
    n, d = points.shape
    first, second = np.triu_indices(n, 1)
    start = _largest_cosine(points)
    near = (points[first] * points[second]).sum(axis=1) > start - 0.15
    first, second = first[near], second[near]
    pairs, rows = np.arange(len(first)), np.arange(n)

    def room(z: np.ndarray) -> np.ndarray:
        x = z[:-1].reshape(n, d)
        return z[-1] - (x[first] * x[second]).sum(axis=1)

    def room_slope(z: np.ndarray) -> np.ndarray:
        x = z[:-1].reshape(n, d)
        slope = np.zeros((len(pairs), n, d))
        slope[pairs, first], slope[pairs, second] = -x[second], -x[first]
        return np.column_stack([slope.reshape(len(pairs), -1), np.ones(len(pairs))])

    def length(z: np.ndarray) -> np.ndarray:
        return (z[:-1].reshape(n, d) ** 2).sum(axis=1) - 1.0

    def length_slope(z: np.ndarray) -> np.ndarray:
        slope = np.zeros((n, n, d))
        slope[rows, rows] = 2.0 * z[:-1].reshape(n, d)
        return np.column_stack([slope.reshape(n, -1), np.zeros(n)])

    only_last = np.append(np.zeros(n * d), 1.0)
    found = minimize(
        lambda z: (z[-1], only_last),
        np.append(points.ravel(), start),
        jac=True,
        method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": room, "jac": room_slope},
            {"type": "eq", "fun": length, "jac": length_slope},
        ],
        options={"maxiter": 100, "ftol": 1e-15},
    )
    polished = _unit(found.x[:-1].reshape(n, d))
    return polished if _largest_cosine(polished) < start else points


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _largest_cosine(points: np.ndarray) -> float:
    cosines = points @ points.T
    np.fill_diagonal(cosines, -1.0)
    return float(np.clip(cosines.max(), -1.0, 1.0))
