"""Boundary maps of methods and their matches, kept on disk: for `benchmarks/boundaries.py`."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hed_boundaries import save_arrays

MAX_DISTANCE = 0.0075

Predict = Callable[[np.ndarray], np.ndarray]
Job = Callable[[], tuple[np.ndarray, np.ndarray]]


class Photograph(NamedTuple):
    """An image `(H, W, 3)` and its annotators' maps `(annotators, H, W)`."""

    path: Path
    pixels: np.ndarray
    truths: np.ndarray

    @property
    def name(self) -> str:
        """Its file name without ending."""
        return self.path.stem


@dataclass
class Row:
    """What is known of a method."""

    counts: np.ndarray
    figures: Any
    seconds: float | None = None
    parameters: int = 0
    trained_on: str = "-"


def read_photographs(options: argparse.Namespace) -> list[Photograph]:
    """The first images of the part, with all annotations."""
    from keras_rpe.data import find_boundary_pairs
    from keras_rpe.data.bsds import read_boundary_pair

    photographs = []
    for pair in find_boundary_pairs(options.folder, options.split)[: options.images]:
        pixels, annotations = read_boundary_pair(pair)
        truths = np.stack([one.boundaries for one in annotations])
        photographs.append(Photograph(pair.image, pixels, truths))
    return photographs


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def show_progress(text: str, done: int, total: int) -> None:
    """Write over the line of the step before."""
    end = "\n" if done == total else ""
    print(f"\r{text} {done} of {total}", end=end, file=sys.stderr, flush=True)


def make_maps(
    photographs: list[Photograph], folder: Path, load: Callable[[], tuple[Predict, int]], runs: int
) -> None:
    """Write the map of each photograph; `runs` runs of what is timed make one map."""
    if not photographs:
        return
    predict, parameters = load()
    shapes = set()
    for done, photograph in enumerate(photographs, start=1):
        if photograph.pixels.shape not in shapes:
            predict(photograph.pixels)
            shapes.add(photograph.pixels.shape)
        start = time.perf_counter()
        boundaries = predict(photograph.pixels)
        seconds = (time.perf_counter() - start) / runs
        save_arrays(
            folder / f"{photograph.name}.npz",
            boundaries=boundaries,
            seconds=seconds,
            parameters=parameters,
        )
        show_progress(f"{folder.parent.name}: maps", done, len(photographs))


def count(jobs: dict[str, Job], folder: Path, thresholds: np.ndarray, processes: int) -> np.ndarray:
    """Match maps to those of annotators.

    Args:
        jobs: By name, functions that give a map and the annotators' maps.
        folder: Where the counts are kept.
        thresholds: Array `(n,)`.
        processes: How many share the work.

    Returns:
        Counts `(jobs, n, 4)`, as `BoundaryFigures.from_counts` takes them.
    """
    from keras_rpe.metrics.boundary_workers import BoundaryWorkers

    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.npz" for name in jobs}
    missing = [name for name, file in files.items() if not file.exists()]
    if missing:
        with BoundaryWorkers(min(processes, len(missing)), thresholds, MAX_DISTANCE) as workers:
            counted = workers.map(jobs[name]() for name in missing)
            for done, (name, counts) in enumerate(zip(missing, counted), start=1):
                save_arrays(files[name], counts=counts)
                show_progress(f"{folder.parent.name}: counts", done, len(missing))
    return np.stack([read_arrays(file)["counts"] for file in files.values()])


def evaluate(
    key: str,
    make: Callable[[list[Photograph], Path], None],
    photographs: list[Photograph],
    options: argparse.Namespace,
    thins_itself: bool = False,
) -> Row:
    """Make the maps and the counts that are missing.

    Args:
        key: Name of the method's folder in the cache.
        make: Writes the maps of photographs into a folder.
        photographs: All of them.
        options: Of the command.
        thins_itself: Whether the maps are lines already.

    Returns:
        The method's row.
    """
    from keras_rpe.metrics import BoundaryFigures
    from keras_rpe.ops import thin_boundaries

    maps = options.cache / key / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    files = {one.name: maps / f"{one.name}.npz" for one in photographs}
    again = options.time_again
    make([one for one in photographs if again or not files[one.name].exists()], maps)

    def job(photograph: Photograph) -> tuple[np.ndarray, np.ndarray]:
        found = read_arrays(files[photograph.name])["boundaries"].astype(np.float32)
        if not thins_itself:
            found = np.asarray(thin_boundaries(found[None], border=options.border))[0]
        return found, photograph.truths

    thinning = "" if thins_itself else f"_border_{options.border}"
    counts = count(
        {one.name: lambda one=one: job(one) for one in photographs},
        options.cache / key / f"counts_{options.thresholds}{thinning}",
        options.levels,
        options.cores,
    )
    arrays = [read_arrays(file) for file in files.values()]
    return Row(
        counts,
        BoundaryFigures.from_counts(counts, options.levels),
        statistics.median(float(one["seconds"]) for one in arrays),
        int(arrays[0]["parameters"]),
    )


def evaluate_people(photographs: list[Photograph], options: argparse.Namespace) -> Row:
    """Match each annotator to the others, where there are any."""
    from keras_rpe.metrics import BoundaryFigures

    def job(truths: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        return truths[index].astype(np.float32), np.delete(truths, index, axis=0)

    jobs = {
        f"{one.name}_{index}": lambda one=one, index=index: job(one.truths, index)
        for one in photographs
        if len(one.truths) > 1
        for index in range(len(one.truths))
    }
    cut = np.array([0.5])
    counts = count(jobs, options.cache / "human" / "counts", cut, options.cores)
    return Row(counts, BoundaryFigures.from_counts(counts, cut))
