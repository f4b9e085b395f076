"""Matching of thinned boundary maps to those of annotators.

Run as a script, this file is a process of `boundary_benchmark`. It imports nothing of the package,
so that such a process loads neither Keras nor TensorFlow.
"""

from __future__ import annotations

import math
import pickle
import signal
import sys

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from skimage.morphology import thin

# What a pixel without a partner costs, in units of the largest allowed distance.
_OUTLIER_COST = 100.0
# Up to this many entries a dense assignment beats the sparse one.
_DENSE_ENTRIES = 8000
# About 2 GB while the table of allowed pairs is made.
_MAX_PAIRS = 50_000_000


class BoundaryMatcher:
    """Matches predicted boundary maps to one true map, one after the other.

    Pixels that can reach each other through allowed pairs form a component, which is matched on its
    own. Predictions at neighboring thresholds share most components: each is solved once.
    """

    def __init__(self, truth: np.ndarray, max_distance: float) -> None:
        self._limit = max_distance * math.hypot(*truth.shape)
        self._truth = np.flatnonzero(truth)
        self._pairs = _allowed_pairs(truth, self._limit)
        self._solved: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def match(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Match predicted pixels, given by their ascending indices in the flattened map.

        Returns indices of the matched predicted and of the matched true pixels, pair by pair.
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
        first, second = zip(*solved.values())
        return np.concatenate(first), np.concatenate(second)


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
    rows, columns, distances = [], [], []
    for step_y in range(-reach_y, reach_y + 1):
        for step_x in range(-reach_x, reach_x + 1):
            if step_y**2 + step_x**2 > limit**2:
                continue
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
    """Solve a component, rows of a sparse matrix of distances + 1; return the pairs."""
    rows = indptr.size - 1
    if rows == 1:
        return np.zeros(1, np.intp), indices[[costs.argmin()]]
    names, column = np.unique(indices, return_inverse=True)
    row = np.repeat(np.arange(rows), np.diff(indptr))
    columns = names.size
    if columns == 1:
        return row[[costs.argmin()]], names
    # The cost of leaving one pixel of each map without a partner, which a pair saves.
    unpaired = 1 + 2 * _OUTLIER_COST * limit
    if rows * columns <= _DENSE_ENTRIES:
        dense = np.full((rows, columns), unpaired)
        dense[row, column] = costs
        first, second = linear_sum_assignment(dense)
        paired = dense[first, second] < unpaired
        return first[paired], names[second[paired]]
    flipped = rows > columns
    if flipped:
        row, column, rows, columns = column, row, columns, rows
    # Every row finds a partner, or takes a column of its own that stands for none.
    own = np.arange(rows)
    table = csr_array(
        (
            np.concatenate((costs, np.full(rows, unpaired))),
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


def boundary_counts(
    prediction: np.ndarray, truths: np.ndarray, thresholds: np.ndarray, max_distance: float
) -> np.ndarray:
    """Count the matched pixels of one image at all thresholds.

    At each threshold the map `prediction >= threshold` is thinned to lines and matched to the map
    of every annotator in turn; a predicted pixel is right if any of them has a partner for it.
    `truths` is (annotators, height, width). Returns int64 (thresholds, 4): the matched true pixels
    and all true pixels, both summed over the annotators; the right predicted pixels and all.
    """
    matchers = [BoundaryMatcher(truth, max_distance) for truth in truths]
    counts = np.zeros((len(thresholds), 4), np.int64)
    counts[:, 1] = np.count_nonzero(truths)
    last_size = None
    for index, threshold in enumerate(thresholds):
        mask = prediction >= threshold
        size = np.count_nonzero(mask)
        if size == last_size:  # the maps shrink: equally many pixels are the same pixels
            counts[index] = counts[index - 1]
            continue
        last_size = size
        lines = np.flatnonzero(thin(mask))
        right = np.zeros(prediction.size, bool)
        for matcher in matchers:
            found, hit = matcher.match(lines)
            right[found] = True
            counts[index, 0] += hit.size
        counts[index, 2:] = np.count_nonzero(right), lines.size
    return counts


def _serve() -> None:
    """Answer pickled arguments of `boundary_counts` on stdin, image after image, until it ends."""
    # An interrupt reaches all processes of a terminal: the one that asked ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            arguments = pickle.load(sys.stdin.buffer)
        except (EOFError, pickle.UnpicklingError):  # the end, or that of who asked
            return
        try:
            answer: np.ndarray | ValueError = boundary_counts(*arguments)
        except ValueError as error:  # a `max_distance` that allows too many pairs
            answer = error
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
