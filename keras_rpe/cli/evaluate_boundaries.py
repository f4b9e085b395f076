"""How well a model detects the boundaries that people drew."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from keras_rpe.cli.boundary_maps import map_function
from keras_rpe.cli.named_pairs import named_pairs
from keras_rpe.cli.report import print_table

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.data import BoundaryPair
    from keras_rpe.metrics import BoundaryFigures
    from keras_rpe.models import BoundaryDetector

_COLUMNS = ["figure", "value", "threshold", "precision", "recall"]
_NAMES = (
    *("ods", "ods_threshold", "ods_precision", "ods_recall"),
    *("ois", "ois_precision", "ois_recall", "ap"),
)
_SHOWN = 20


def evaluate_boundaries(
    network: BoundaryDetector,
    folder: Path,
    names: Path | None,
    split: str,
    threshold: Sequence[float] | None,
) -> dict[str, Any]:
    """Detect the boundaries in a part of BSDS500 and print the figures of its benchmark.

    Args:
        network: The model.
        folder: Folder with `images/SPLIT` and `groundTruth/SPLIT`.
        names: A file of image names, or None for all.
        split: "train", "val" or "test".
        threshold: Strengths at which maps are cut; None or empty: 0.01, 0.02, … 0.99.

    Returns:
        The figures by name.

    Raises:
        ValueError: If an argument is out of its range, or a file cannot be used.
    """
    from keras_rpe.data import find_boundary_pairs
    from keras_rpe.metrics import boundary_benchmark
    from keras_rpe.metrics.boundary_checks import check_boundary_thresholds

    cuts = check_boundary_thresholds(sorted(set(threshold)) if threshold else 99)
    pairs = named_pairs(find_boundary_pairs(folder, split), names, folder)
    annotators = _checked(pairs)
    figures = boundary_benchmark(
        _thinned(network, pairs),
        _Drawn(pairs),
        thresholds=cuts,
        progress=sys.stderr.isatty(),
    )
    print_table(f"{folder}, {split}", _COLUMNS, _rows(figures))
    typer.echo(f"images {len(pairs)}, annotations {annotators}, thresholds {len(cuts)}")
    return _by_name(figures, len(pairs), annotators)


def _checked(pairs: Sequence[BoundaryPair]) -> int:
    """Read all files once, as the benchmark takes long to come to the last; count annotations."""
    from keras_rpe.data import ImageFileError, LabelFolderError
    from keras_rpe.data.boundary_pairs import read_boundary_pair

    count, reasons = 0, []
    for pair in pairs:
        try:
            count += len(read_boundary_pair(pair)[1])
        except (ImageFileError, OSError) as error:
            reasons.append(str(error).removesuffix("."))
    if reasons:
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        raise LabelFolderError(
            f"{len(reasons)} of {len(pairs)} images cannot be used: "
            f"{'; '.join(reasons[:_SHOWN])}{more}."
        )
    return count


def _thinned(network: BoundaryDetector, pairs: Sequence[BoundaryPair]) -> Iterator[np.ndarray]:
    from keras_rpe.data import read_image

    maps_of = map_function(network)
    for pair in pairs:
        yield maps_of(read_image(pair.image))[1]


class _Drawn:
    """The maps of the annotators of each image, read in turn; the length is for the progress."""

    def __init__(self, pairs: Sequence[BoundaryPair]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        from keras_rpe.data import read_boundaries

        for pair in self._pairs:
            yield [annotation.boundaries for annotation in read_boundaries(pair.boundaries)]


def _rows(found: BoundaryFigures) -> list[list[str]]:
    ods = (found.ods, found.ods_threshold, found.ods_precision, found.ods_recall)
    ois = (f"{value:.3f}" for value in (found.ois_precision, found.ois_recall))
    return [
        ["ODS", *(f"{value:.3f}" for value in ods)],
        ["OIS", f"{found.ois:.3f}", "each its own", *ois],
        ["AP", f"{found.ap:.3f}", "", "", ""],
    ]


def _by_name(found: BoundaryFigures, images: int, annotators: int) -> dict[str, Any]:
    curve = zip(found.thresholds, found.precision, found.recall)
    return {
        "images": images,
        "annotations": annotators,
        **{name: getattr(found, name) for name in _NAMES},
        "thresholds": [
            {"threshold": float(t), "precision": float(p), "recall": float(r)} for t, p, r in curve
        ],
    }
