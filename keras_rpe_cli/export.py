"""`keras-rpe export`: a model as a file that returns instances or boundaries."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from keras_rpe_cli.options import load_model
from keras_rpe_cli.report import import_keras_rpe, print_device

if TYPE_CHECKING:
    import numpy as np

_FORMATS_BY_ENDING = {".tflite": "litert", ".onnx": "onnx", ".zip": "bioimageio"}
# More change the ranges of int8 little, and take a few seconds each.
_MOST_IMAGES = 16


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PRESET_OR_MODEL", help="Name or folder of a preset, or a .keras file."
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(help="Folder NAME for a SavedModel, which gets NAME/1, or a file to write."),
    ],
    format: Annotated[
        Literal["tf_saved_model", "litert", "onnx", "bioimageio"] | None,
        typer.Option(
            help="Default: by the ending of OUT, .tflite, .onnx or .zip (bioimageio), else "
            "tf_saved_model."
        ),
    ] = None,
    quantize: Annotated[
        Literal["float16", "dynamic", "int8"] | None,
        typer.Option(help="Smaller weights, for litert; int8 needs --images."),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Folder or glob of 8-bit images like those to come, for int8; the first is the "
            "test of a bioimageio package."
        ),
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Most pixels of a request to a tf_saved_model.")
    ] = None,
) -> None:
    """Write a model for TensorFlow Serving, for phones (LiteRT) or ONNX runtimes.

    The graph takes pixels and gives instances, or boundaries: nothing of
    this package is needed to run it.
    """
    chosen = format or _FORMATS_BY_ENDING.get(out.suffix, "tf_saved_model")
    import_keras_rpe()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "export needs TensorFlow: save the model as .keras, and set KERAS_BACKEND=tensorflow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    print_device()
    samples = None if images is None else _read_samples(images)
    model = load_model(source)
    path = model.export(out, chosen, quantize, samples, max_pixels)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    typer.echo(f"{path}: {size / 1e6:.1f} MB")


def _read_samples(text: str) -> list[np.ndarray]:
    from keras_rpe.data import find_images, read_image

    files = find_images(text)
    step = max(len(files) // _MOST_IMAGES, 1)
    return [read_image(file) for file in itertools.islice(files, 0, None, step)][:_MOST_IMAGES]
