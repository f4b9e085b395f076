"""How well a model segments images with label images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from keras_rpe.cli.model_option import segment_image
from keras_rpe.cli.named_pairs import named_pairs
from keras_rpe.cli.report import print_table, progress_bar

if TYPE_CHECKING:
    from keras_rpe.data import LabelPair
    from keras_rpe.metrics import Matching
    from keras_rpe.models import InstanceSegmenter

_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
_COLUMNS = ["IoU from", "AP", "precision", "recall", "F1", "mean IoU", "PQ", "TP", "FP", "FN"]


def evaluate_instances(
    network: InstanceSegmenter,
    folder: Path,
    names: Path | None,
    images: str,
    instances: str,
    threshold: Sequence[float] | None,
) -> dict[str, Any]:
    """Segment the images of a folder and print the figures.

    Args:
        network: The model.
        folder: Folder of images and label images.
        names: A file of image names, or None for all.
        images: Glob of the images in the folder.
        instances: Glob of the label images.
        threshold: IoUs from which an instance is found; None or empty: 0.5, 0.6, … 0.9.

    Returns:
        The figures by name.

    Raises:
        ValueError: If an argument is out of its range, or a file cannot be used.
    """
    from keras_rpe.data import check_label_pairs, find_label_pairs
    from keras_rpe.metrics.matching import check_thresholds

    thresholds = sorted(set(check_thresholds(threshold or _THRESHOLDS)))
    pairs = named_pairs(find_label_pairs(folder, images, instances), names, folder)
    check_label_pairs(pairs)
    matchings, seconds = match_pairs(network, pairs, thresholds)
    seconds_per_image = seconds / len(pairs)
    print_table(str(folder), _COLUMNS, [_row(m) for m in matchings])
    first = matchings[0]
    typer.echo(
        f"images {len(pairs)}, instances {first.n_true}, predicted {first.n_pred}, "
        f"{seconds_per_image:.2f} s an image"
    )
    return {
        "images": len(pairs),
        "instances": first.n_true,
        "predicted": first.n_pred,
        "seconds_per_image": seconds_per_image,
        "thresholds": [_figures(m) for m in matchings],
    }


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
