"""The boundary benchmark of BSDS500: ODS, OIS and AP."""

from __future__ import annotations

import numbers
import os
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from keras_rpe.arguments import check_integer, check_number, check_numbers
from keras_rpe.metrics import boundary_matching
from keras_rpe.metrics.boundary_matching import BoundaryMatcher, boundary_counts
from keras_rpe.metrics.matching import image_by_image

Image = tuple[np.ndarray, np.ndarray]


def _check_boundary_map(
    name: str, value: npt.ArrayLike, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Return a boolean map (height, width), or raise `ValueError` with the argument's name."""
    array = np.asarray(value)
    if (
        array.ndim != 2
        or array.dtype != bool
        or not array.size
        or array.shape != (shape or array.shape)
    ):
        wanted = "(height, width)" if shape is None else f"of the shape {shape} of the prediction"
        raise ValueError(
            f"`{name}` must be a boolean map {wanted}, not empty. "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    return array


def _check_prediction(value: npt.ArrayLike) -> np.ndarray:
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


def check_boundary_thresholds(value: Any) -> np.ndarray:
    """Return thresholds as an ascending float64 array, or raise `ValueError`.

    A number n means n thresholds k / (n + 1), in the rounding of the official benchmark: from
    1 / (n + 1) in equal steps. It matters for maps of 8 bits, where 85 / 255 is 1 / 3.
    """
    if isinstance(value, numbers.Integral):
        number = check_integer("thresholds", value, at_most=10_000)
        first = 1 / (number + 1)
        return np.linspace(first, 1 - first, number)
    return np.sort(check_numbers("thresholds", value, "(0, 1]"))


def match_boundaries(
    predicted: npt.ArrayLike, truth: npt.ArrayLike, max_distance: float = 0.0075
) -> tuple[np.ndarray, np.ndarray]:
    """Pair predicted boundary pixels with true ones, each at most once.

    Of all one-to-one pairings within the allowed distance it is the cheapest: a pair costs its
    distance, a pixel without a partner 100 times the largest allowed one. So there are as many
    pairs as possible, and among those pairings the sum of distances, in steps of 1/1024 of a pixel,
    is the smallest. Where several pairings are equally cheap, one of them is taken.

    Args:
        predicted: boolean map (height, width), usually of lines one pixel wide.
        truth: boolean map (height, width) of true boundary pixels.
        max_distance: largest distance of a pair, in diagonals of the image, in [0, 1).

    Returns:
        Two boolean maps (height, width): the predicted pixels that have a partner, and the true
        pixels that have one. Both hold equally many.

    Raises:
        ValueError: if a map is not a boolean map of two dimensions, is empty, the shapes differ, or
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
    predicted = _check_boundary_map("predicted", predicted)
    truth = _check_boundary_map("truth", truth, predicted.shape)
    matcher = BoundaryMatcher(truth, check_number("max_distance", max_distance, "[0, 1)"))
    found, hit = np.zeros_like(predicted), np.zeros_like(truth)
    first, second = matcher.match(np.flatnonzero(predicted))
    found.flat[first] = True
    hit.flat[second] = True
    return found, hit


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
        predictions: maps (height, width) of boundary strengths in [0, 1]. May be a generator; few
            maps are held at a time.
        truths: for each of them the boolean maps (height, width) of its annotators.
        thresholds: their number n, which means k / (n + 1) for k = 1 ... n, or values in (0, 1].
        max_distance: largest distance of a pair, in diagonals of the image, in [0, 1).
        processes: how many processes share the images; 1 works in this one. None takes one for
            each processor, and this one if there is a single image or processor.
        progress: whether to draw a progress bar on the standard error, or, where it is no
            terminal, to write a line there every half minute, if their number is known.

    Returns:
        The figures over all images.

    Raises:
        ValueError: if there is no image, the lengths differ, a prediction holds anything but
            numbers in [0, 1], or a truth is not a list of boolean maps of its shape (the message
            then starts with the image's number, from 0), an argument is outside its range, or
            `max_distance` leaves more than 50 million pairs.
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
    max_distance = check_number("max_distance", max_distance, "[0, 1)")
    total = min((len(x) for x in (predictions, truths) if isinstance(x, Sized)), default=None)
    workers = _how_many(processes, total)
    images = image_by_image(_checked, predictions=predictions, truths=truths)
    counts = count_images(images, levels, max_distance, workers)
    if progress:
        counts = _with_progress(counts, total)
    collected = list(counts)
    if not collected:
        raise ValueError("`predictions` must hold at least one map. Received: none")
    return BoundaryFigures.from_counts(np.stack(collected), levels)


def _checked(prediction: npt.ArrayLike, truths: Iterable[npt.ArrayLike]) -> Image:
    checked = _check_prediction(prediction)
    maps = [_check_boundary_map(f"truths[{i}]", one, checked.shape) for i, one in enumerate(truths)]
    if not maps:
        raise ValueError("`truths` must hold at least one annotator's map. Received: none")
    return checked, np.stack(maps)


def _how_many(processes: int | None, images: int | None) -> int:
    if processes is not None:
        return check_integer("processes", processes, at_most=1024)
    if not sys.executable:  # an interpreter inside another program
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    available = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(available, images if images is not None else available))


def count_images(
    images: Iterable[Image], thresholds: np.ndarray, max_distance: float, processes: int
) -> Iterator[np.ndarray]:
    """Yield `boundary_counts` of each image, in their order; few images are held at a time.

    More than one process means new interpreters that run the script `boundary_matching.py`, one for
    each thread here. A `ProcessPoolExecutor` would either copy this process, which is unsafe with
    the threads of TensorFlow, or run the user's own script again in each new one.
    """
    if processes == 1:
        for image in images:
            yield boundary_counts(*image, thresholds, max_distance)
        return
    # Each process is to take one core.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", boundary_matching.__file__]
    pipe = subprocess.PIPE
    workers: list[subprocess.Popen[bytes]] = []
    own = threading.local()

    def start() -> None:
        own.worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        workers.append(own.worker)

    def count(image: Image) -> np.ndarray:
        try:
            stdin = cast(IO[bytes], own.worker.stdin)
            pickle.dump((*image, thresholds, max_distance), stdin)
            stdin.flush()
            answer = pickle.load(cast(IO[bytes], own.worker.stdout))
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise RuntimeError(
                "A process of the boundary benchmark ended before its work was done; "
                "with `processes=1` the work is done in this one."
            ) from error
        if isinstance(answer, ValueError):
            raise answer
        return answer

    threads = ThreadPoolExecutor(processes, initializer=start)
    pending: deque[Future[np.ndarray]] = deque()
    try:
        for image in images:
            pending.append(threads.submit(count, image))
            if len(pending) > 2 * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:  # which wait for more, or have work left that nobody asks for
            worker.kill()
        threads.shutdown()
        for worker in workers:
            worker.kill()
            worker.communicate()


_BETWEEN_LINES = 30  # Seconds.


def _with_progress(counts: Iterator[np.ndarray], total: int | None) -> Iterator[np.ndarray]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress("Boundaries", *columns, console=console) as bar:
            yield from bar.track(counts, total=total)
        return
    begin = last = time.monotonic()
    for done, count in enumerate(counts, start=1):
        yield count
        now = time.monotonic()
        if total and done < total and now - last >= _BETWEEN_LINES:
            last, left = now, (now - begin) / done * (total - done) / 60
            print(
                f"Boundaries: {done} of {total} images, {left:.0f} minutes left",
                file=sys.stderr,
                flush=True,
            )
