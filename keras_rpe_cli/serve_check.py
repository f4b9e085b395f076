"""The command `serve-check`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_rpe_cli.demo import demo_image
from keras_rpe_cli.options import (
    DiameterOption,
    ModelOption,
    PresetOption,
    load_model,
    load_task,
    parsed_diameter,
)
from keras_rpe_cli.report import import_keras_rpe, print_device, print_error, print_table

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.models import Boundaries, Instances


def serve_check(
    out: Annotated[
        str,
        typer.Argument(
            help="A SavedModel folder, a .tflite or .onnx file, or the address of a server: "
            "http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME."
        ),
    ],
    image: Annotated[
        Path | None,
        typer.Argument(help="An image file; default: the one of `keras-rpe demo`."),
    ] = None,
    preset: PresetOption = None,
    model: ModelOption = None,
    diameter: DiameterOption = "auto",
    runs: Annotated[int, typer.Option(min=1, help="Timed runs after the first.")] = 3,
    least_iou: Annotated[
        float, typer.Option(min=0, max=1, help="Agreement below which the check fails.")
    ] = 0.9,
) -> None:
    """Compare an exported model with the Keras model on one image.

    The Keras model is the one that was exported, unless --preset or --model
    says otherwise. Prints the agreement, and the seconds of the first and of
    further runs. The agreement of instances is the mean IoU of each with its
    match; that of boundary maps is the sum of the lesser by the sum of the
    greater of the two values of each pixel.
    """
    at = parsed_diameter(diameter)
    import_keras_rpe()
    print_device()
    from keras_rpe.data import read_image
    from keras_rpe.export import load_served

    pixels = demo_image() if image is None else read_image(image)
    served = load_served(out)
    network = _keras_model(out, preset, model)
    predict = "predict_instances"
    compare: Callable[[Any, Any], Comparison] = _compare_instances
    given = {} if at == "auto" else {"diameter": at}
    if type(network).__name__ == "BoundaryDetector":
        if given:
            raise ValueError(
                f"--diameter does not go with a model for boundaries. Received: {diameter}"
            )
        predict, compare = "predict_boundaries", _compare_boundaries
    expected, *keras_times = _timed(partial(getattr(network, predict), **given), pixels, runs)
    found, *served_times = _timed(partial(getattr(served, predict), **given), pixels, runs)
    counted, counts, agreement, sentence = compare(expected, found)
    rows = [
        [name, str(count), *(f"{value:.2f} s" for value in seconds), text]
        for name, count, seconds, text in (
            ("Keras model", counts[0], keras_times, ""),
            (out, counts[1], served_times, f"{agreement:.4f}"),
        )
    ]
    title = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
    print_table(title, ["", counted, "first run", "further runs", "agreement"], rows)
    typer.echo(sentence)
    if agreement < least_iou:
        print_error(f"the agreement, {agreement:.4f}, is below --least-iou {least_iou}")
        raise typer.Exit(1)


# What is counted, how many of it in each, the agreement of the two, and a sentence.
Comparison = tuple[str, tuple[int, int], float, str]


def _compare_instances(expected: Instances, found: Instances) -> Comparison:
    from keras_rpe.metrics import matching

    iou = matching(expected.labels, found.labels, 0.5).mean_true_iou
    agreement = iou if len(expected) else float(len(found) == 0)
    same = bool((expected.labels == found.labels).all())
    sentence = "labels are identical" if same else "labels differ"
    return "instances", (len(expected), len(found)), agreement, sentence


def _compare_boundaries(expected: Boundaries, found: Boundaries) -> Comparison:
    import numpy as np

    a, b = expected.probabilities, found.probabilities
    greater = float(np.maximum(a, b).sum())
    agreement = float(np.minimum(a, b).sum()) / greater if greater else 1.0
    sentence = f"boundaries differ by at most {np.abs(a - b).max():.2g}"
    return "pixels from 0.5", (int((a >= 0.5).sum()), int((b >= 0.5).sum())), agreement, sentence


def _keras_model(out: str, preset: str | None, model: Path | None) -> Any:
    from keras_rpe.export import read_record

    classes = "InstanceSegmenter", "BoundaryDetector"
    if preset is not None or model is not None:
        return load_task(preset, model, *classes)
    record = None if "://" in out else read_record(out)
    if record is None or record.source is None:
        raise ValueError(
            f"{out} does not say which Keras model it was exported from: give --preset or --model."
        )
    return load_model(record.source, *classes)


def _timed(predict: Callable[[Any], Any], image: np.ndarray, runs: int) -> tuple[Any, float, float]:
    """The result, the seconds of the first run, and the median of those after it."""
    from keras_rpe.held_back_stderr import held_back_stderr

    seconds = []
    # Some runtimes tell with the first image what they delegate to.
    with held_back_stderr():
        for _ in range(runs + 1):
            start = time.perf_counter()
            result = predict(image)
            seconds.append(time.perf_counter() - start)
    return result, seconds[0], median(seconds[1:])
