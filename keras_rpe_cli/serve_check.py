"""The command `serve-check`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from keras_rpe_cli.demo import demo_image
from keras_rpe_cli.options import (
    ModelOption,
    PresetOption,
    load_preset_or_model,
    load_task,
    other_task,
)
from keras_rpe_cli.report import import_keras_rpe, print_error, print_table

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.export import ServedModel
    from keras_rpe.models import BoundaryDetector, InstanceSegmenter, Task


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
    import_keras_rpe()
    from keras_rpe.data import read_image
    from keras_rpe.export import load_served
    from keras_rpe.models import BoundaryDetector, InstanceSegmenter

    pixels = demo_image() if image is None else read_image(image)
    served = load_served(out)
    network = _keras_model(out, preset, model)
    if isinstance(network, BoundaryDetector):
        found = _compare_boundaries(network, served, pixels, runs)
    elif not isinstance(network, InstanceSegmenter):
        raise other_task(network, preset, model, "an InstanceSegmenter or a BoundaryDetector")
    else:
        found = _compare_instances(network, served, pixels, runs)
    rows = [
        ["Keras model", *found.keras, ""],
        [out, *found.served, f"{found.agreement:.4f}"],
    ]
    print_table(
        f"{pixels.shape[1]} x {pixels.shape[0]} pixels",
        ["", found.counted, "first run", "further runs", "agreement"],
        rows,
    )
    typer.echo(found.sentence)
    if found.agreement < least_iou:
        print_error(f"the agreement, {found.agreement:.4f}, is below --least-iou {least_iou}")
        raise typer.Exit(1)


class _Comparison(NamedTuple):
    """Cells of the table: a count and seconds of each model, and how well the two agree."""

    counted: str
    keras: list[str]
    served: list[str]
    agreement: float
    sentence: str


def _compare_instances(
    network: InstanceSegmenter, served: ServedModel, pixels: np.ndarray, runs: int
) -> _Comparison:
    from keras_rpe.metrics import matching

    expected, *keras_times = _timed(network.predict_instances, pixels, runs)
    found, *served_times = _timed(served.predict_instances, pixels, runs)
    pair = matching(expected.labels, found.labels, 0.5)
    same = bool((expected.labels == found.labels).all())
    return _Comparison(
        "instances",
        _cells(len(expected), keras_times),
        _cells(len(found), served_times),
        pair.mean_true_iou if len(expected) else float(len(found) == 0),
        "labels are identical" if same else "labels differ",
    )


def _compare_boundaries(
    network: BoundaryDetector, served: ServedModel, pixels: np.ndarray, runs: int
) -> _Comparison:
    import numpy as np

    result, *keras_times = _timed(network.predict_boundaries, pixels, runs)
    answer, *served_times = _timed(served.predict_boundaries, pixels, runs)
    expected, found = result.probabilities, answer.probabilities
    greater = float(np.maximum(expected, found).sum())
    return _Comparison(
        "pixels from 0.5",
        _cells(int((expected >= 0.5).sum()), keras_times),
        _cells(int((found >= 0.5).sum()), served_times),
        float(np.minimum(expected, found).sum()) / greater if greater else 1.0,
        f"boundaries differ by at most {np.abs(expected - found).max():.2g}",
    )


def _keras_model(out: str, preset: str | None, model: Path | None) -> Task:
    from keras_rpe.export import read_record

    if preset is not None or model is not None:
        return load_task(preset, model)
    record = None if "://" in out else read_record(out)
    if record is None or record.source is None:
        raise ValueError(
            f"{out} does not say which Keras model it was exported from: give --preset or --model."
        )
    return load_preset_or_model(record.source)


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


def _cells(count: int, seconds: list[float]) -> list[str]:
    return [str(count), *(f"{value:.2f} s" for value in seconds)]
