"""Export to a SavedModel, as TensorFlow Serving takes it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from keras_rpe.export.export_record import RECORD_NAME, ExportRecord
from keras_rpe.export.image_checks import MAX_PIXELS
from keras_rpe.export.serving_files import write_models_config, write_warmup_requests
from keras_rpe.export.signatures import serving_signatures, write_signatures

if TYPE_CHECKING:
    from keras_rpe.models import Task

EXTRA_FOLDER = "assets.extra"


def export_saved_model(
    model: Task, path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> Path:
    """Write a SavedModel whose graph takes pixels and gives what the task finds.

    Its signatures are those of `serving_signatures`. Beside it come warm-up requests
    (`assets.extra/tf_serving_warmup_requests`) and, in the folder above, `models.config`.

    Args:
        model: The model.
        path: Folder of the model, `…/NAME`, whose next version is written, `…/NAME/1` at first;
            or that of a version that does not exist yet, `…/NAME/7`.
        max_pixels: Most pixels, batch · H · W, of a request; the graph refuses more.

    Returns:
        The folder of the version.

    Raises:
        ValueError: If the version exists, or `max_pixels` is not positive.
        OSError: If the folder cannot be written.
    """
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 64:
        raise ValueError(
            f"`max_pixels` must be an integer of at least 64. Received: max_pixels={max_pixels!r}"
        )
    target = _version_folder(Path(path))
    name_folder = target.resolve().parent
    name_folder.mkdir(parents=True, exist_ok=True)
    # A server looks for folders whose names are numbers, so it does not see this one.
    temporary = Path(tempfile.mkdtemp(prefix=".exporting-", dir=name_folder))
    try:
        version = temporary / "version"
        signatures = serving_signatures(model, max_pixels)
        write_signatures(signatures, str(version))
        extra = version / EXTRA_FOLDER
        write_warmup_requests(extra, name_folder.name, signatures)
        record = ExportRecord("tf_saved_model", source=model.source)
        (extra / RECORD_NAME).write_text(record.to_json(), encoding="utf-8")
        write_models_config(name_folder)
        version.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _version_folder(path: Path) -> Path:
    if path.name.isdecimal():
        if path.exists():
            raise ValueError(
                f"`filepath` must be a version that does not exist yet, or a folder without a "
                f"number, which gets its next version. Received: filepath={str(path)!r}"
            )
        return path
    if path.exists() and not path.is_dir():
        raise ValueError(f"`filepath` must be a folder. Received: the file {str(path)!r}")
    return path / str(max(_versions(path), default=0) + 1)


def latest_version(path: Path) -> Path:
    """Find the version that a server would take.

    Args:
        path: Folder of the model or of a version.

    Returns:
        The folder of the highest version below `path`; `path` itself where there is none.
    """
    return path / str(max(_versions(path))) if _versions(path) else path


def _versions(path: Path) -> list[int]:
    entries = path.iterdir() if path.is_dir() else iter(())
    return [int(entry.name) for entry in entries if entry.name.isdecimal()]
