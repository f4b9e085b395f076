"""The boundary benchmark of BSDS500: ODS, OIS and AP."""

from __future__ import annotations

import math
import numbers
import os
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from keras_rpe.metrics.boundary_workers import BoundaryWorkers, Image


def check_boundary_map(name: str, value: npt.ArrayLike) -> np.ndarray:
    """Return a boolean map (height, width), or raise `ValueError` with the argument's name."""
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype != bool or not array.size:
        raise ValueError(
            f"`{name}` must be a boolean map (height, width) with at least one pixel. "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    return array


def check_prediction(value: npt.ArrayLike) -> np.ndarray:
    """Return a map (height, width) of finite numbers in [0, 1], or raise `ValueError`."""
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.size:
        raise ValueError(
            "A prediction must be a map (height, width) of numbers with at least one pixel. "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    array = array.astype(np.float64)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # also where one of them is NaN
        raise ValueError(
            f"A prediction must be finite and within [0, 1]. Received: from {low:g} to {high:g}"
        )
    return array


def check_truths(value: Sequence[npt.ArrayLike], shape: tuple[int, ...]) -> np.ndarray:
    """Return the maps of all annotators as (annotators, height, width), or raise `ValueError`."""
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str):
        raise ValueError(
            "`truths` must be a list of maps, one for each annotator. "
            f"Received: {type(value).__name__}"
        )
    maps = [check_boundary_map(f"truths[{i}]", one) for i, one in enumerate(value)]
    if not maps:
        raise ValueError("`truths` must hold at least one annotator's map. Received: none")
    for i, one in enumerate(maps):
        if one.shape != shape:
            raise ValueError(
                "The maps of `truths` must have the shape of the prediction. "
                f"Received: {one.shape} in `truths[{i}]`, a prediction of {shape}"
            )
    return np.stack(maps)


def check_max_distance(value: Any) -> float:
    """Return a distance in diagonals of the image, in [0, 1), or raise `ValueError`."""
    valid = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not valid or not 0 <= float(value) < 1:
        raise ValueError(f"`max_distance` must be a number in [0, 1). Received: {value!r}")
    return float(value)


def check_boundary_thresholds(value: Any) -> np.ndarray:
    """Return thresholds as an ascending float64 array, or raise `ValueError`.

    A number n means n thresholds k / (n + 1), in the rounding of the official benchmark: from
    1 / (n + 1) in equal steps. It matters for maps of 8 bits, where 85 / 255 is 1 / 3.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        if not 1 <= number <= 10_000:
            raise ValueError(f"`thresholds` must be from 1 to 10000. Received: {number}")
        first = 1 / (number + 1)
        return np.linspace(first, 1 - first, number)
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 1 or not array.size or not np.all((array > 0) & (array <= 1)):
        raise ValueError(
            "`thresholds` must be a number of thresholds, or a sequence of values in (0, 1]. "
            f"Received: {value!r}"
        )
    if np.any(np.diff(array) <= 0):
        raise ValueError(f"`thresholds` must ascend. Received: {value!r}")
    return array


# Steps (row, column) to the eight neighbours: east, then counter-clockwise.
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def _removable() -> tuple[np.ndarray, np.ndarray]:
    """Whether each of the 256 neighbourhoods lets a pixel go, in the two half-steps."""
    x = [(np.arange(256) >> bit & 1).astype(bool) for bit in range(8)]
    crossings = sum((~x[i] & (x[i + 1] | x[(i + 2) % 8])).astype(int) for i in (0, 2, 4, 6))
    first = sum((x[i] | x[i + 1]).astype(int) for i in (0, 2, 4, 6))
    second = sum((x[i] | x[(i + 1) % 8]).astype(int) for i in (1, 3, 5, 7))
    fewest = np.minimum(first, second)
    simple = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    south_east = simple & ~((x[1] | x[2] | ~x[7]) & x[0])
    north_west = simple & ~((x[5] | x[6] | ~x[3]) & x[4])
    return south_east, north_west


_REMOVABLE = _removable()


def thin_to_lines(mask: np.ndarray) -> np.ndarray:
    """Thin a binary map until nothing more can go; what is connected stays so.

    The parallel algorithm of Guo and Hall, "Parallel thinning with two-subiteration algorithms",
    Communications of the ACM 32 (1989). A pixel is looked at again only after one of its
    neighbours went, so that the cost grows with the pixels, not with the widest region.

    Args:
        mask: boolean array (height, width).

    Returns:
        Boolean array (height, width), a subset of `mask`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics.boundaries import thin_to_lines
        >>> thin_to_lines(np.ones((3, 5), bool)).astype(int)
        array([[0, 0, 0, 0, 0],
               [0, 1, 1, 1, 0],
               [0, 0, 0, 0, 0]])
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    flat = padded.ravel()
    steps = np.array([row * padded.shape[1] + column for row, column in _NEIGHBOURS])
    everything = np.flatnonzero(flat)
    waiting = [everything, everything]  # what the two half-steps have to look at
    turn = 0
    while waiting[0].size or waiting[1].size:
        pixels = waiting[turn]
        code = np.zeros(pixels.size, np.uint8)
        for bit, step in enumerate(steps):
            code |= flat[pixels + step] << np.uint8(bit)
        gone = pixels[_REMOVABLE[turn][code]]
        flat[gone] = 0
        touched = (gone[:, None] + steps).ravel()
        both = np.concatenate((waiting[1 - turn], touched))
        for half, candidates in ((turn, touched), (1 - turn, both)):
            waiting[half] = np.unique(candidates[flat[candidates] > 0])
        turn = 1 - turn
    return padded[1:-1, 1:-1].astype(bool)


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
        >>> from keras_rpe.metrics.boundaries import BoundaryMatcher
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


def boundary_counts(
    prediction: np.ndarray, truths: np.ndarray, thresholds: np.ndarray, max_distance: float
) -> np.ndarray:
    """Count the matched pixels of one image at all thresholds.

    At each threshold the map `prediction >= threshold` is thinned to lines and matched to every
    annotator's map in turn. A predicted pixel is right if any annotator's map has a partner for
    it.

    Args:
        prediction: array (height, width) in [0, 1].
        truths: boolean array (annotators, height, width).
        thresholds: array (n,).
        max_distance: largest distance of a pair, in diagonals of the image.

    Returns:
        int64 array (n, 4), for each threshold: the matched true pixels and all true pixels, both
        summed over the annotators; the right predicted pixels and all of them, after thinning.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics.boundaries import boundary_counts
        >>> line = np.zeros((6, 6), bool)
        >>> line[2] = True
        >>> boundary_counts(line * 0.6, line[None], np.array([0.5, 0.7]), 0.01)
        array([[6, 6, 6, 6],
               [0, 6, 0, 0]])
    """
    matchers = [BoundaryMatcher(truth, max_distance) for truth in truths]
    counts = np.zeros((len(thresholds), 4), np.int64)
    counts[:, 1] = np.count_nonzero(truths)
    previous = raw = None
    for index, threshold in enumerate(thresholds):
        mask = prediction >= threshold
        size = np.count_nonzero(mask)
        if size == raw:  # the maps shrink: equally many pixels are the same pixels
            counts[index] = counts[index - 1]
            continue
        raw = size
        lines = np.flatnonzero(thin_to_lines(mask))
        if previous is not None and np.array_equal(lines, previous):
            counts[index] = counts[index - 1]
            continue
        previous = lines
        right = np.zeros(prediction.size, bool)
        for matcher in matchers:
            found, hit = matcher.match(lines)
            right[found] = True
            counts[index, 0] += hit.size
        counts[index, 2:] = np.count_nonzero(right), lines.size
    return counts


# Points between two thresholds at which precision and recall are interpolated for the best F.
_STEPS = 100


@dataclass(frozen=True, eq=False)
class BoundaryFigures:
    """What the boundary benchmark of BSDS500 reports.

    Attributes:
        ods: best F-measure at one threshold for all images (optimal data set scale), in [0, 1].
        ods_threshold: that threshold; it may lie between two of `thresholds`.
        ods_precision: precision there.
        ods_recall: recall there.
        ois: F-measure where every image has its own best threshold (optimal image scale).
        ois_precision: precision with these thresholds.
        ois_recall: recall with these thresholds.
        ap: area under precision over recall, from precisions at the recalls 0, 0.01, ..., 1, those
            outside the measured range counted as 0. A map of zeros and ones has no range: 0.
        thresholds: array (n,).
        precision: array (n,): right predicted pixels by all of them, 0 where there are none.
        recall: array (n,): matched true pixels by all of them, 0 where there are none.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import BoundaryFigures
        >>> counts = np.array([[[8, 10, 8, 16], [6, 10, 6, 8]]])
        >>> figures = BoundaryFigures.from_counts(counts, np.array([0.3, 0.6]))
        >>> round(figures.ods, 3), round(figures.ods_threshold, 3), round(figures.ois, 3)
        (0.669, 0.548, 0.667)
        >>> figures.precision, figures.recall
        (array([0.5 , 0.75]), array([0.8, 0.6]))
    """

    ods: float
    ods_threshold: float
    ods_precision: float
    ods_recall: float
    ois: float
    ois_precision: float
    ois_recall: float
    ap: float
    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @classmethod
    def from_counts(cls, counts: np.ndarray, thresholds: np.ndarray) -> BoundaryFigures:
        """Compute the figures.

        Args:
            counts: integer array (images, n, 4) of what `boundary_counts` returns.
            thresholds: array (n,), ascending.

        Returns:
            The figures.
        """
        recall, precision = _rates(counts.sum(axis=0))
        ods_threshold, ods_recall, ods_precision = _best_between(thresholds, recall, precision)
        best = _f_measure(*_rates(counts)).argmax(axis=1)
        own = counts[np.arange(len(counts)), best].sum(axis=0)
        ois_recall, ois_precision = _rates(own)
        return cls(
            ods=float(_f_measure(ods_recall, ods_precision)),
            ods_threshold=float(ods_threshold),
            ods_precision=float(ods_precision),
            ods_recall=float(ods_recall),
            ois=float(_f_measure(ois_recall, ois_precision)),
            ois_precision=float(ois_precision),
            ois_recall=float(ois_recall),
            ap=_area(recall, precision),
            thresholds=thresholds,
            precision=precision,
            recall=recall,
        )


def _rates(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of counts (..., 4); 0 where nothing is to be found, or was."""
    hit, true, right, predicted = np.moveaxis(counts, -1, 0)
    return hit / np.maximum(true, 1), right / np.maximum(predicted, 1)


def _f_measure(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    total = recall + precision
    return 2 * recall * precision / np.where(total == 0, 1, total)


def _best_between(*curves: np.ndarray) -> tuple[np.ndarray, ...]:
    """Threshold, recall and precision of the best F-measure, interpolated linearly."""
    weight = np.linspace(0, 1, _STEPS)
    dense = [
        np.append(
            (curve[:-1, None] * (1 - weight[:-1]) + curve[1:, None] * weight[:-1]).ravel(),
            curve[-1],
        )
        for curve in curves
    ]
    best = _f_measure(dense[1], dense[2]).argmax()
    return tuple(values[best] for values in dense)


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    measured, first = np.unique(recall, return_index=True)
    if measured.size < 2:
        return 0.0
    at = np.linspace(0, 1, 101)
    return float(np.interp(at, measured, precision[first], left=0, right=0).sum() * 0.01)


_MISSING: Any = object()


def boundary_benchmark(
    predictions: Iterable[npt.ArrayLike],
    truths: Iterable[Sequence[npt.ArrayLike]],
    thresholds: int | Sequence[float] | np.ndarray = 99,
    max_distance: float = 0.0075,
    processes: int | None = None,
    progress: bool = False,
) -> BoundaryFigures:
    """Evaluate boundary maps as the benchmark of BSDS500 does.

    Each map is cut at every threshold (`prediction >= threshold`), thinned to lines and matched to
    every annotator's map, one pixel to one pixel (see `match_boundaries`). A predicted pixel is
    right if it has a partner in any annotator's map; true pixels are counted over all annotators.
    Thick or blurred responses thin to lines in the wrong place: suppress all but their maxima
    before.

    Args:
        predictions: maps (height, width) of boundary strengths in [0, 1]. A generator serves; few
            maps are held at a time.
        truths: for each of them the boolean maps (height, width) of its annotators.
        thresholds: their number n, which means k / (n + 1) for k = 1 ... n, or ascending values in
            (0, 1].
        max_distance: largest distance of a pair, in diagonals of the image, in [0, 1).
        processes: how many processes share the images; 1 works in this one. None takes one for
            each processor, and this one if there is a single image or processor.
        progress: whether to draw a progress bar on the standard error.

    Returns:
        The figures over all images.

    Raises:
        ValueError: if there is no image, the lengths differ, a prediction holds anything but
            numbers in [0, 1], or a truth is not a list of boolean maps of its shape (the message
            then starts with the image's number, from 0).
        RuntimeError: if a process ends before its work is done.

    Source: Arbeláez, Maire, Fowlkes and Malik, "Contour detection and hierarchical image
    segmentation", IEEE TPAMI 33 (2011).

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import boundary_benchmark
        >>> truth = np.zeros((20, 20), bool)
        >>> truth[10] = True
        >>> prediction = np.where(truth, 0.8, 0)
        >>> prediction[2] = 0.4
        >>> figures = boundary_benchmark([prediction], [[truth]], thresholds=9)
        >>> figures.ods, round(figures.ods_threshold, 1)
        (1.0, 0.5)
        >>> figures.precision.round(1).tolist()
        [0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 0.0]
    """
    levels = check_boundary_thresholds(thresholds)
    max_distance = check_max_distance(max_distance)
    for name, images_of in (("predictions", predictions), ("truths", truths)):
        if not isinstance(images_of, Iterable):
            kind = "maps" if name == "predictions" else "lists of maps"
            raise ValueError(
                f"`{name}` must be a sequence of {kind}, one for each image. "
                f"Received: {type(images_of).__name__}"
            )
    total = min((len(x) for x in (predictions, truths) if isinstance(x, Sized)), default=None)
    images = _checked(predictions, truths)
    workers = _how_many(processes, total)
    if workers == 1:
        counts = (boundary_counts(*image, levels, max_distance) for image in images)
        collected = list(_shown(counts, total, progress))
    else:
        with BoundaryWorkers(workers, levels, max_distance) as pool:
            collected = list(_shown(pool.map(images), total, progress))
    if not collected:
        raise ValueError("`predictions` must hold at least one map. Received: none")
    return BoundaryFigures.from_counts(np.stack(collected), levels)


def _checked(
    predictions: Iterable[npt.ArrayLike], truths: Iterable[Sequence[npt.ArrayLike]]
) -> Iterator[Image]:
    """Yield checked pairs of a prediction and its truths (annotators, height, width)."""
    pairs = zip_longest(predictions, truths, fillvalue=_MISSING)
    for index, (prediction, maps) in enumerate(pairs):
        if prediction is _MISSING or maps is _MISSING:
            shorter = "predictions" if prediction is _MISSING else "truths"
            raise ValueError(
                "`predictions` and `truths` must be equally long. "
                f"Received: only {index} in `{shorter}`"
            )
        try:
            checked = check_prediction(prediction)
            image = checked, check_truths(maps, checked.shape)
        except ValueError as error:
            raise ValueError(f"Image {index}: {error}") from None
        yield image


def _how_many(processes: int | None, images: int | None) -> int:
    if processes is not None:
        if not isinstance(processes, numbers.Integral) or not 1 <= int(processes) <= 1024:
            raise ValueError(f"`processes` must be None or from 1 to 1024. Received: {processes!r}")
        return int(processes)
    if not sys.executable:  # an interpreter inside another program
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(available, images if images is not None else available))


def _shown(counts: Iterator[np.ndarray], total: int | None, progress: bool) -> Iterator[np.ndarray]:
    if not progress:
        yield from counts
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress("Boundaries", *columns, console=Console(stderr=True)) as bar:
        yield from bar.track(counts, total=total)
