"""Arrangements of points that are known to be as far apart as possible."""

from __future__ import annotations

from itertools import permutations, product
from math import sqrt

import numpy as np

# Largest inner product of two points, by dimension and number of points.
# Dimension 3 is Tammes' problem: Schütte & van der Waerden (1951) for 7 to 9 points, Danzer (1986)
# for 10 and 11, Fejes Tóth (1943) for 12, Musin & Tarasov (2012, 2015) for 13 and 14, Robinson
# (1961) for 24. Beyond: Bachoc & Vallentin (2009) for 10 in dimension 4, de Laat, Leijenhorst &
# de Muinck Keizer (2024) for 24, Andreev (1999) for 120, and Levenshtein (1979) for the others.
KNOWN_COSINES: dict[tuple[int, int], float] = {
    (3, 7): 0.210138312730603,  # a root of 3c³ - 9c² - 3c + 1
    (3, 8): (sqrt(8) - 1) / 7,
    (3, 9): 1 / 3,
    (3, 10): 0.404394325216251,  # a root of 7c³ - 4c² - 2c + 1
    (3, 11): 1 / sqrt(5),
    (3, 12): 1 / sqrt(5),
    (3, 13): 0.542636486829639,
    (3, 14): 0.563950300360505,
    (3, 24): 0.723078468333509,  # the snub cube
    (4, 10): 1 / 6,
    (4, 24): 1 / 2,
    (4, 120): (1 + sqrt(5)) / 4,
    (5, 16): 1 / 5,
    (6, 27): 1 / 4,
    (7, 56): 1 / 3,
    (8, 240): 1 / 2,
}


def known_points(dim: int, groups: int) -> np.ndarray | None:
    """Points of a known best arrangement, where there is a construction.

    Args:
        dim: Dimension D, at least 2.
        groups: Number of points N.

    Returns:
        Unit vectors `(N, D)`: a simplex for N ≤ D + 1, axes in both directions for N ≤ 2 D, a
        regular polygon for D = 2, the 24-cell, the 600-cell, and the roots of E8 with the
        arrangements of the nearest neighbours in it; otherwise `None`.
    """
    if groups <= dim + 1:
        return _simplex(dim, groups)
    if dim == 2:
        angles = 2 * np.pi * np.arange(groups) / groups
        return np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    if groups <= 2 * dim:
        axes = np.arange(groups)
        points = np.zeros((groups, dim))
        points[axes, axes // 2] = 1.0 - 2.0 * (axes % 2)
        return points
    if (dim, groups) == (4, 24):
        return _two_axes(4) / sqrt(2)
    if (dim, groups) == (4, 120):
        return _cell_600()
    if (dim, groups) in {(4, 10), (5, 16), (6, 27), (7, 56), (8, 240)}:
        points = _roots_of_e8() / sqrt(2)
        while points.shape[1] > dim:
            points = _nearest_of_first(points)
        return points
    return None


def _simplex(dim: int, groups: int) -> np.ndarray:
    """Corners `(N, D)` of a regular simplex about the origin, N ≤ D + 1: Helmert's matrix."""
    points = np.zeros((groups, dim))
    if groups == 1:
        points[0, 0] = 1.0
        return points
    row, k = np.arange(groups)[:, None], np.arange(1, groups)
    corners = np.where(row < k, 1.0, np.where(row == k, -k, 0.0)) / np.sqrt(k * (k + 1.0))
    points[:, : groups - 1] = corners / sqrt(1.0 - 1.0 / groups)
    return points


def _two_axes(dim: int) -> np.ndarray:
    """All ±e_i ± e_j."""
    eye, signs = np.eye(dim), list(product((1.0, -1.0), repeat=2))
    return np.array(
        [a * eye[i] + b * eye[j] for i in range(dim) for j in range(i) for a, b in signs]
    )


def _roots_of_e8() -> np.ndarray:
    halves = np.array(list(product((0.5, -0.5), repeat=8)))
    return np.concatenate([_two_axes(8), halves[np.prod(halves, axis=1) > 0]])


def _cell_600() -> np.ndarray:
    golden = (1 + sqrt(5)) / 2
    axes = np.concatenate([np.eye(4), -np.eye(4)])
    halves = np.array(list(product((0.5, -0.5), repeat=4)))
    even = [p for p in permutations(range(4)) if np.linalg.det(np.eye(4)[list(p)]) > 0]
    signed = [
        (a * golden / 2, b / 2, c / (2 * golden), 0.0) for a, b, c in product((1, -1), repeat=3)
    ]
    turned = np.array([[point[k] for k in p] for p in even for point in signed])
    return np.concatenate([axes, halves, turned])


def _nearest_of_first(points: np.ndarray) -> np.ndarray:
    """The nearest neighbours of the first point as seen from it, in one dimension less."""
    first, others = points[0], points[1:]
    cosines = others @ first
    near = others[cosines > cosines.max() - 1e-9]
    # The other columns of this basis are at right angles to the first point.
    basis = np.linalg.qr(np.column_stack([first, np.eye(len(first))]))[0][:, 1 : len(first)]
    near = near @ basis
    return near / np.linalg.norm(near, axis=1, keepdims=True)
