"""The boundary benchmark of BSDS500."""

from __future__ import annotations

import numbers
import os
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_rpe.metrics.boundary_checks import (
    check_boundary_thresholds,
    check_max_distance,
    check_prediction,
    check_truths,
)
from keras_rpe.metrics.boundary_counts import boundary_counts
from keras_rpe.metrics.boundary_figures import BoundaryFigures
from keras_rpe.metrics.boundary_workers import BoundaryWorkers, Image

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
