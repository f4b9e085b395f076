"""One-to-one matching of predicted boundary pixels to true ones."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from keras_rpe.metrics.boundary_checks import check_boundary_map, check_max_distance

# What a pixel without a partner costs, in units of the largest allowed distance.
_OUTLIER_COST = 100.0
# Up to this many entries a dense assignment beats the sparse one.
_DENSE_ENTRIES = 8000
# About 2 GB while the table of allowed pairs is made.
_MAX_PAIRS = 50_000_000


class BoundaryMatcher:
    """Matches predicted boundary maps to one true map, one after the other.

    Predictions at neighbouring thresholds share most of their pixels. Pixels that can reach each
    other through allowed pairs form a component, which is matched for itself, and a component that
    was in the previous prediction too is not solved again.

    Args:
        truth: boolean array (height, width) of true boundary pixels.
        max_distance: largest distance of a pair, in diagonals of the image, in [0, 1).

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics.boundary_matching import BoundaryMatcher
        >>> matcher = BoundaryMatcher(np.eye(4, dtype=bool), max_distance=0.2)
        >>> predicted, true = matcher.match(np.array([1, 2]))
        >>> predicted, true
        (array([1]), array([0]))
    """

    def __init__(self, truth: np.ndarray, max_distance: float) -> None:
        self._limit = max_distance * math.hypot(*truth.shape)
        self._truth = np.flatnonzero(truth)
        self._pairs = _allowed_pairs(truth, self._limit)
        self._solved: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def match(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Match predicted pixels.

        Args:
            predicted: integer array of their indices in the flattened map, ascending.

        Returns:
            Indices in the flattened maps of the matched predicted and of the matched true pixels;
            entry i of the one is the partner of entry i of the other.
        """
        pairs = self._pairs[predicted]
        near = np.flatnonzero(np.diff(pairs.indptr))
        predicted, pairs = predicted[near], pairs[near]
        if not near.size:
            return predicted, predicted
        rows, columns = pairs.shape
        # A graph of both kinds of pixels, the true ones numbered behind the predicted ones.
        links = csr_array(
            (
                np.ones(pairs.nnz, np.int8),
                pairs.indices + rows,
                np.concatenate((pairs.indptr, np.full(columns, pairs.nnz))),
            ),
            shape=(rows + columns, rows + columns),
        )
        component = connected_components(links, directed=False)[1]
        order = np.argsort(component[:rows], kind="stable")
        predicted, pairs = predicted[order], pairs[order]
        starts = np.flatnonzero(np.diff(component[order], prepend=-1)).tolist()
        solved = {}
        for start, stop in zip(starts, [*starts[1:], rows]):
            # The predicted pixels settle which true pixels they reach.
            key = predicted[start:stop].tobytes()
            answer = self._solved.get(key)
            if answer is None:
                edges = slice(pairs.indptr[start], pairs.indptr[stop])
                row, column = _assign(
                    pairs.indptr[start : stop + 1] - pairs.indptr[start],
                    pairs.indices[edges],
                    pairs.data[edges],
                    self._limit,
                )
                answer = predicted[start + row], self._truth[column]
            solved[key] = answer
        self._solved = solved
        matched = list(solved.values())
        return np.concatenate([a for a, _ in matched]), np.concatenate([b for _, b in matched])


def _allowed_pairs(truth: np.ndarray, limit: float) -> csr_array:
    """Distances + 1 between all pixels (rows) and the true ones (columns), where within `limit`.

    The 1 keeps a distance of 0 in the sparse matrix.
    """
    height, width = truth.shape
    y, x = np.nonzero(truth)
    reach_y, reach_x = min(int(limit), height - 1), min(int(limit), width - 1)
    if y.size * (2 * reach_y + 1) * (2 * reach_x + 1) > _MAX_PAIRS:
        raise ValueError(
            f"`max_distance` must leave at most {_MAX_PAIRS} pairs of pixels to choose from. "
            f"Received: {limit:.4g} pixels around each of {y.size} true ones"
        )
    dy, dx = (
        grid.ravel()
        for grid in np.meshgrid(
            np.arange(-reach_y, reach_y + 1), np.arange(-reach_x, reach_x + 1), indexing="ij"
        )
    )
    inside = dy**2 + dx**2 <= limit**2
    dy, dx = dy[inside], dx[inside]
    rows, columns, distances = [], [], []
    for step_y, step_x in zip(dy.tolist(), dx.tolist()):
        to_y, to_x = y + step_y, x + step_x
        column = np.flatnonzero((to_y >= 0) & (to_y < height) & (to_x >= 0) & (to_x < width))
        rows.append(to_y[column] * width + to_x[column])
        columns.append(column)
        distances.append(np.full(column.size, 1 + math.hypot(step_y, step_x)))
    entries = np.concatenate(distances), (np.concatenate(rows), np.concatenate(columns))
    return csr_array(entries, shape=(truth.size, y.size))


def _assign(
    indptr: np.ndarray, indices: np.ndarray, costs: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Solve one component given as the rows of a sparse matrix of distances + 1.

    Returns:
        Row numbers and column indices of the matched pairs.
    """
    rows = indptr.size - 1
    if rows == 1:
        return np.zeros(1, np.intp), indices[[costs.argmin()]]
    names, column = np.unique(indices, return_inverse=True)
    row = np.repeat(np.arange(rows), np.diff(indptr))
    columns = names.size
    if columns == 1:
        return row[[costs.argmin()]], names
    # A pair saves the cost of two lonely pixels; not to pair costs nothing else.
    lonely = 1 + 2 * _OUTLIER_COST * limit
    if rows * columns <= _DENSE_ENTRIES:
        dense = np.full((rows, columns), lonely)
        dense[row, column] = costs
        first, second = linear_sum_assignment(dense)
        paired = dense[first, second] < lonely
        return first[paired], names[second[paired]]
    flipped = rows > columns
    if flipped:
        row, column, rows, columns = column, row, columns, rows
    # Every row finds a partner, or takes a column of its own that stands for none.
    own = np.arange(rows)
    table = csr_array(
        (
            np.concatenate((costs, np.full(rows, lonely))),
            (np.concatenate((row, own)), np.concatenate((column, columns + own))),
        ),
        shape=(rows, columns + rows),
    )
    first, second = min_weight_full_bipartite_matching(table)
    paired = second < columns
    first, second = first[paired], second[paired]
    if flipped:
        first, second = second, first
    return first, names[second]


def match_boundaries(
    predicted: npt.ArrayLike, truth: npt.ArrayLike, max_distance: float = 0.0075
) -> tuple[np.ndarray, np.ndarray]:
    """Pair predicted boundary pixels with true ones, each at most once.

    Of all one-to-one pairings within the allowed distance it is the cheapest: a pair costs its
    distance, a pixel without a partner 100 times the largest allowed one. So there are as many
    pairs as possible, and among those pairings the sum of distances is the smallest. The optimum is
    exact; where several pairings are equally cheap, one of them is taken.

    Args:
        predicted: boolean map (height, width), usually of lines one pixel wide.
        truth: boolean map (height, width) of true boundary pixels.
        max_distance: largest distance of a pair, in diagonals of the image, in [0, 1).

    Returns:
        Two boolean maps (height, width): the predicted pixels that have a partner, and the true
        pixels that have one. Both hold equally many.

    Raises:
        ValueError: if a map is not a boolean map of two dimensions, the shapes differ, or
            `max_distance` is outside its range or leaves more than 50 million pairs.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import match_boundaries
        >>> predicted = np.array([[True, False, True, False, False, False]])
        >>> truth = np.array([[False, True, False, False, False, True]])
        >>> found, hit = match_boundaries(predicted, truth, max_distance=0.2)
        >>> int(found.sum()), np.flatnonzero(hit).tolist()
        (1, [1])
    """
    predicted = check_boundary_map("predicted", predicted)
    truth = check_boundary_map("truth", truth)
    if predicted.shape != truth.shape:
        raise ValueError(
            "`predicted` and `truth` must have the same shape. "
            f"Received: {predicted.shape} and {truth.shape}"
        )
    matcher = BoundaryMatcher(truth, check_max_distance(max_distance))
    found, hit = np.zeros_like(predicted), np.zeros_like(truth)
    first, second = matcher.match(np.flatnonzero(predicted))
    found.flat[first] = True
    hit.flat[second] = True
    return found, hit
