"""One function for all formats."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_rpe.export.litert import export_litert
from keras_rpe.export.onnx import export_onnx
from keras_rpe.export.saved_model import MAX_PIXELS, export_saved_model

if TYPE_CHECKING:
    from keras_rpe.models import Task

FORMATS = ("tf_saved_model", "litert", "onnx")


def export_model(
    model: Task,
    path: str | os.PathLike[str],
    format: str = "tf_saved_model",
    quantize: str | None = None,
    representative_data: Iterable[Any] | None = None,
    max_pixels: int | None = None,
) -> Path:
    """Write a model in one of the formats: what `Task.export` calls.

    Args:
        model: The model.
        path: A folder for "tf_saved_model", `….tflite` for "litert", `….onnx` for "onnx".
        format: One of these.
        quantize: As `export_litert` takes it.
        representative_data: As `export_litert` takes it.
        max_pixels: As `export_saved_model` takes it.

    Returns:
        The version's folder, or the file.

    Raises:
        ValueError: If an argument is unknown or does not go with the format.
        ImportError: If the format needs an extra that is not installed.
        RuntimeError: If Keras runs on another backend than TensorFlow.
        OSError: If it cannot be written.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Models are exported on the TensorFlow backend: save this one as .keras, and load it "
            f"with KERAS_BACKEND=tensorflow. Received: backend={keras.backend.backend()!r}"
        )
    if format not in FORMATS:
        raise ValueError(
            f"`format` must be one of {', '.join(map(repr, FORMATS))}. Received: format={format!r}"
        )
    if format != "litert" and (quantize is not None or representative_data is not None):
        raise ValueError(
            "`quantize` and `representative_data` go with format='litert'. "
            f"Received: format={format!r}, quantize={quantize!r}"
        )
    if format != "tf_saved_model" and max_pixels is not None:
        raise ValueError(
            "`max_pixels` goes with format='tf_saved_model'. "
            f"Received: format={format!r}, max_pixels={max_pixels!r}"
        )
    if format == "litert":
        return export_litert(model, path, quantize, representative_data)
    if format == "onnx":
        return export_onnx(model, path)
    return export_saved_model(model, path, MAX_PIXELS if max_pixels is None else max_pixels)
