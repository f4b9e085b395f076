"""`keras-rpe evaluate`: how well a model segments labelled images."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_rpe.cli.model_option import (
    ModelOption,
    PresetOption,
    check_model_choice,
    load_segmenter,
    segment_image,
)
from keras_rpe.cli.report import print_table, progress_bar
from keras_rpe.cli.tensorflow_import import import_tensorflow
from keras_rpe.written_file import write_file

if TYPE_CHECKING:
    from keras_rpe.data import LabelPair
    from keras_rpe.metrics import Matching
    from keras_rpe.models import InstanceSegmenter

_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
_COLUMNS = ["IoU from", "AP", "precision", "recall", "F1", "mean IoU", "PQ", "TP", "FP", "FN"]


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of images and label images.")],
    preset: PresetOption = None,
    model: ModelOption = None,
    names: Annotated[
        Path | None,
        typer.Option(help="A text file with one image name, without ending, a line: only these."),
    ] = None,
    images: Annotated[str, typer.Option(help="Glob of the images in the folder.")] = "images/*",
    instances: Annotated[
        str, typer.Option(help="Glob of the label images in the folder.")
    ] = "instances/*",
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="Smallest IoU of a match; repeat it for several. Default: 0.5, 0.6 … 0.9."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures into this file.")
    ] = None,
) -> None:
    """Compare a model with label images.

    Every image is segmented whole, and the counts of all images are pooled.
    """
    check_model_choice(preset, model)
    if json_file is not None and (not json_file.parent.is_dir() or json_file.is_dir()):
        raise ValueError(f"--json needs a file in an existing folder. Received: {json_file}")
    import_tensorflow()
    from keras_rpe.metrics.matching import check_thresholds

    thresholds = sorted(set(check_thresholds(threshold or _THRESHOLDS)))
    pairs = _pairs(folder, names, images, instances)
    network = load_segmenter(preset, model)
    matchings, seconds = match_pairs(network, pairs, thresholds)
    seconds_per_image = seconds / len(pairs)
    rows = [_row(m) for m in matchings]
    print_table(str(folder), _COLUMNS, rows)
    first = matchings[0]
    typer.echo(
        f"images {len(pairs)}, instances {first.n_true}, predicted {first.n_pred}, "
        f"{seconds_per_image:.2f} s an image"
    )
    if json_file is not None:
        figures = {
            "images": len(pairs),
            "instances": first.n_true,
            "predicted": first.n_pred,
            "seconds_per_image": seconds_per_image,
            "thresholds": [_figures(m) for m in matchings],
        }
        write_file(json_file, json.dumps(figures, indent=2) + "\n")


def _pairs(folder: Path, names: Path | None, images: str, instances: str) -> list[LabelPair]:
    from keras_rpe.data import LabelFolderError, check_label_pairs, find_label_pairs

    pairs = find_label_pairs(folder, images, instances)
    if names is not None:
        wanted = _read_names(names)
        missing = sorted(wanted - {pair.name for pair in pairs})
        if missing:
            raise LabelFolderError(
                f"--names {names} lists {len(missing)} names of which there is no image in "
                f"{folder}, such as {missing[0]!r}."
            )
        pairs = [pair for pair in pairs if pair.name in wanted]
    check_label_pairs(pairs)
    return pairs


def _read_names(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--names needs a text file. Received: {path}") from error
    names = {line.strip() for line in lines if line.strip()}
    if not names:
        raise ValueError(f"--names needs a file with at least one name. Received: {path}")
    return names


def match_pairs(
    network: InstanceSegmenter, pairs: Sequence[LabelPair], thresholds: list[float]
) -> tuple[list[Matching], float]:
    """Segment images whole and compare them with their labels.

    Args:
        network: The model.
        pairs: Images with label images.
        thresholds: IoUs from which an instance is found, ascending.

    Returns:
        The matching of all images pooled for each threshold, and the seconds that segmenting
        alone took.
    """
    import numpy as np

    from keras_rpe.data import read_image, read_labels
    from keras_rpe.metrics import matching

    # The first image compiles the graph, which is not what the time of an image means.
    network.predict_instances(np.zeros((32, 32)))
    pooled: list[list[Matching]] = []
    seconds = 0.0
    with progress_bar("evaluating", len(pairs)) as advance:
        for pair in pairs:
            assert pair.image is not None
            assert pair.instances is not None
            image, labels = read_image(pair.image), read_labels(pair.instances)
            start = time.perf_counter()
            predicted = segment_image(network, image, pair.name).labels
            seconds += time.perf_counter() - start
            pooled.append(matching(labels, predicted, thresholds))
            advance()
    return [reduce(add, column) for column in zip(*pooled)], seconds


def _figures(m: Matching) -> dict[str, float]:
    return {
        "iou": m.threshold,
        "average_precision": m.average_precision,
        "precision": m.precision,
        "recall": m.recall,
        "f1": m.f1,
        "mean_matched_iou": m.mean_matched_iou,
        "panoptic_quality": m.panoptic_quality,
        "tp": m.tp,
        "fp": m.fp,
        "fn": m.fn,
    }


def _row(m: Matching) -> list[str]:
    threshold, *figures = _figures(m).values()
    texts = [str(f) if isinstance(f, int) else f"{f:.3f}" for f in figures]
    return [f"{threshold:g}", *texts]
