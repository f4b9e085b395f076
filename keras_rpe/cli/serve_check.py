"""`keras-rpe serve-check`: whether an exported model does what the Keras model does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_rpe.cli.demo_image import demo_image
from keras_rpe.cli.model_option import (
    ModelOption,
    PresetOption,
    check_model_choice,
    load_preset_or_model,
    load_segmenter,
)
from keras_rpe.cli.report import print_error, print_table
from keras_rpe.cli.tensorflow_import import import_tensorflow
from keras_rpe.held_back_stderr import held_back_stderr

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.models import Instances, InstanceSegmenter


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
    says otherwise. Prints the agreement of their labels, the mean IoU of each
    instance with its match, and the seconds of the first and of further runs.
    """
    import_tensorflow()
    from keras_rpe.data import read_image
    from keras_rpe.export import load_served
    from keras_rpe.metrics import matching

    pixels = demo_image() if image is None else read_image(image)
    served = load_served(out)
    network = _keras_model(out, preset, model)
    expected, *keras_times = _timed(network.predict_instances, pixels, runs)
    found, *served_times = _timed(served.predict_instances, pixels, runs)
    pair = matching(expected.labels, found.labels, 0.5)
    agreement = pair.mean_true_iou if len(expected) else float(len(found) == 0)
    rows = [
        _row("Keras model", expected, keras_times, ""),
        _row(out, found, served_times, f"{agreement:.4f}"),
    ]
    print_table(
        f"{pixels.shape[1]} x {pixels.shape[0]} pixels",
        ["", "instances", "first run", "further runs", "agreement"],
        rows,
    )
    same = bool((expected.labels == found.labels).all())
    typer.echo("labels are identical" if same else "labels differ")
    if agreement < least_iou:
        print_error(f"the agreement, {agreement:.4f}, is below --least-iou {least_iou}")
        raise typer.Exit(1)


def _keras_model(out: str, preset: str | None, model: Path | None) -> InstanceSegmenter:
    from keras_rpe.export import read_record

    if preset is not None or model is not None:
        check_model_choice(preset, model)
        return load_segmenter(preset, model)
    record = None if "://" in out else read_record(out)
    if record is None or record.source is None:
        raise ValueError(
            f"{out} does not say which Keras model it was exported from: give --preset or --model."
        )
    return load_preset_or_model(record.source)


def _timed(
    predict: Callable[[Any], Instances], image: np.ndarray, runs: int
) -> tuple[Instances, float, float]:
    """The result, the seconds of the first run, and the median of those after it."""
    seconds = []
    # Some runtimes tell with the first image what they delegate to.
    with held_back_stderr():
        for _ in range(runs + 1):
            start = time.perf_counter()
            result = predict(image)
            seconds.append(time.perf_counter() - start)
    return result, seconds[0], median(seconds[1:])


def _row(name: str, result: Instances, seconds: list[float], agreement: str) -> list[str]:
    return [name, str(len(result)), *(f"{value:.2f} s" for value in seconds), agreement]
