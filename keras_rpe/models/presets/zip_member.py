"""Members of zip files of unknown origin."""

from __future__ import annotations

import zipfile
from pathlib import Path

from keras_rpe.models.presets.preset_error import PresetError

_MAX_RATIO = 20  # Weights hardly compress; the JSON beside them does, and is small.
_CHUNK = 1 << 20


def copy_member(file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str) -> None:
    """Unpack one member of a zip file into a file of the caller's choice.

    Args:
        file: The open zip file.
        info: The member; its name is not used.
        path: The file to write.
        name: What an error calls the zip file.

    Raises:
        PresetError: If it grows beyond reason, or is larger than it says.
        Exception: What zipfile raises for damaged data.
    """
    if info.file_size > max(_CHUNK, _MAX_RATIO * info.compress_size):
        raise PresetError(
            f"{name} is refused: {path.name} grows from {info.compress_size:,} to "
            f"{info.file_size:,} bytes."
        )
    left = info.file_size
    with file.open(info) as source, path.open("wb") as target:
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise PresetError(f"{name} is refused: {path.name} is larger than it says.")
            target.write(chunk)
