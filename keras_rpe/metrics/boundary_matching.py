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

# What a pixel without a partner costs, in units of the largest allowed distance.
_OUTLIER_COST = 100.0
# Distances are whole numbers of such parts of a pixel. The sparse assignment raises prices by the
# differences of sums of them: by rounding errors, if they were irrational, and so without end.
_UNITS = 1024
# Up to this many entries a dense assignment beats the sparse one.
_DENSE_ENTRIES = 8000
# About 2 GB while the table of allowed pairs is made.
_MAX_PAIRS = 50_000_000


def thin_lines(marks: np.ndarray) -> np.ndarray:
    """Thin the lines of N drawings, bool (N, H, W), to one pixel without breaking them.

    Guo & Hall, "Parallel Thinning with Two-Subiteration Algorithms", CACM 1989, with their first
    set of conditions, until nothing changes.
    """
    # Equal to `skimage.morphology.thin`, which takes nine times as long for the few lines of a
    # segmentation, because it looks at all pixels; augmented crops and the benchmark wait for it.
    padded = np.pad(marks.astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    row = padded.shape[2]
    # Around a pixel, from its right against the clock.
    steps = (1, 1 - row, -row, -row - 1, -1, row - 1, row, row + 1)
    flat = padded.reshape(-1)
    places = np.flatnonzero(flat)
    while True:
        before = len(places)
        for removable in _REMOVABLE:
            code = np.zeros(len(places), np.uint8)
            for bit, step in enumerate(steps):
                code |= flat[places + step] << np.uint8(bit)
            removed = removable[code]
            flat[places[removed]] = 0
            places = places[~removed]
        if len(places) == before:
            return padded[:, 1:-1, 1:-1].astype(bool)


def _removable() -> tuple[np.ndarray, np.ndarray]:
    """For the two steps, whether a pixel goes, by the bits of its eight neighbors."""
    x = [np.arange(256) >> bit & 1 for bit in range(8)]
    pieces = sum((1 - x[i]) & (x[i + 1] | x[(i + 2) % 8]) for i in (0, 2, 4, 6))
    one = sum(x[i] | x[i + 1] for i in (0, 2, 4, 6))
    other = sum(x[i + 1] | x[(i + 2) % 8] for i in (0, 2, 4, 6))
    fewer = np.minimum(one, other)
    simple = (pieces == 1) & (fewer >= 2) & (fewer <= 3)
    first = ((x[1] | x[2] | (1 - x[7])) & x[0]) == 0
    second = ((x[5] | x[6] | (1 - x[3])) & x[4]) == 0
    return simple & first, simple & second


_REMOVABLE = _removable()


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
        number, component = connected_components(links, directed=False)
        # Those of a component next to each other, and numbered from 0 in each.
        order, names = (np.argsort(part, kind="stable") for part in np.split(component, [rows]))
        place = np.empty(columns, np.intp)
        place[names] = np.arange(columns)
        row_ends, column_ends = (
            np.bincount(part, minlength=number).cumsum() for part in np.split(component, [rows])
        )
        predicted, pairs = predicted[order], pairs[order]
        solved = {}
        start = begin = 0
        for stop, end in zip(row_ends.tolist(), column_ends.tolist()):
            if start < stop:
                # The predicted pixels settle which true pixels they reach.
                key = predicted[start:stop].tobytes()
                answer = self._solved.get(key)
                if answer is None:
                    steps = pairs.indptr[start : stop + 1]
                    edges = slice(steps[0], steps[-1])
                    row = np.repeat(np.arange(stop - start), np.diff(steps))
                    column = place[pairs.indices[edges]] - begin
                    size = stop - start, end - begin
                    row, column = _assign(row, column, pairs.data[edges], size, self._limit)
                    answer = predicted[start + row], self._truth[names[begin + column]]
                solved[key] = answer
            start, begin = stop, end
        self._solved = solved
        first, second = zip(*solved.values())
        return np.concatenate(first), np.concatenate(second)


def _allowed_pairs(truth: np.ndarray, limit: float) -> csr_array:
    """Distances between all pixels (rows) and the true ones (columns), where within `limit`.

    In parts of a pixel, 1 higher, which keeps a distance of 0 in the sparse matrix.
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
            distance = 1.0 + round(_UNITS * math.hypot(step_y, step_x))
            distances.append(np.full(column.size, distance))
    entries = np.concatenate(distances), (np.concatenate(rows), np.concatenate(columns))
    return csr_array(entries, shape=(truth.size, y.size))


def _assign(
    row: np.ndarray, column: np.ndarray, costs: np.ndarray, size: tuple[int, int], limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Solve a component, a sparse matrix of distances; return the pairs."""
    rows, columns = size
    if min(size) == 1:
        best = [costs.argmin()]
        return row[best], column[best]
    # The cost of leaving one pixel of each map without a partner, which a pair saves.
    unpaired = 1.0 + round(_UNITS * 2 * _OUTLIER_COST * limit)
    if rows * columns <= _DENSE_ENTRIES:
        dense = np.full((rows, columns), unpaired)
        dense[row, column] = costs
        first, second = linear_sum_assignment(dense)
        paired = dense[first, second] < unpaired
        return first[paired], second[paired]
    flipped = rows > columns  # The fewer pixels come first, which is faster by far.
    if flipped:
        row, column, rows, columns = column, row, columns, rows
    # Each pixel of either kind has a stand-in, its partner if it stays alone; the stand-ins of two
    # pixels that form a pair are partners for nothing. This is faster than stand-ins for the rows
    # alone, although the table is larger.
    # The assignment begins with all of them alone, if each row's stand-in is its first column.
    first, second = np.arange(rows), rows + np.arange(columns)
    entries = (np.full(rows, unpaired), costs, np.ones(columns), np.ones(row.size))
    places = (first, row, second, rows + column), (first, rows + column, second, row)
    table = csr_array(
        (np.concatenate(entries), tuple(np.concatenate(place) for place in places)),
        shape=(rows + columns, rows + columns),
    )
    second = min_weight_full_bipartite_matching(table)[1][:rows] - rows
    first, second = first[second >= 0], second[second >= 0]
    if flipped:
        first, second = second, first
    return first, second


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
        lines = np.flatnonzero(thin_lines(mask[None]))
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
