"""Where an exported model comes from."""

from __future__ import annotations

import os
from pathlib import Path

from keras_rpe.export import litert
from keras_rpe.export.export_record import RECORD_NAME, ExportRecord
from keras_rpe.export.saved_model import EXTRA_FOLDER, latest_version
from keras_rpe.optional_import import optional_import


def read_record(path: str | os.PathLike[str]) -> ExportRecord | None:
    """Read what an exported model says of its origin.

    Args:
        path: A SavedModel, `…/NAME` or `…/NAME/1`, a `.tflite` or an `.onnx` file.

    Returns:
        The record, or `None` where there is none.

    Raises:
        ValueError: If the record is damaged.
        ImportError: If it is an `.onnx` file and the extra `onnx` is not installed.
        OSError: If a file cannot be read.
    """
    path = Path(path)
    if path.suffix == ".tflite":
        return litert.read_record(path.read_bytes())
    if path.suffix == ".onnx":
        model = optional_import("onnx", "onnx").load(path)
        texts = [entry.value for entry in model.metadata_props if entry.key == RECORD_NAME]
        return ExportRecord.from_json(texts[0]) if texts else None
    record = latest_version(path) / EXTRA_FOLDER / RECORD_NAME
    return ExportRecord.from_json(record.read_bytes()) if record.is_file() else None
