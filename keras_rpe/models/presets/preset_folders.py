"""Presets by name or folder: which there are, and where."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from keras_rpe.models.presets.preset_error import PresetError
from keras_rpe.models.presets.preset_files import CONFIG, METADATA, read_json
from keras_rpe.models.presets.preset_source import fetch_preset, is_remote

# Where an installed package has the presets, and where a checkout has them.
_FOLDERS = (
    Path(__file__).parents[2] / "saved_models",
    Path(__file__).parents[3] / "saved_models",
)


def preset_names() -> list[str]:
    """Names of the presets that come with the package.

    Example:
        >>> from keras_rpe.models import preset_names
        >>> "nuclei" in preset_names()
        True
    """
    found = {path.parent.name for folder in _FOLDERS for path in folder.glob(f"*/{CONFIG}")}
    return sorted(found)


def preset_folder(preset: str | os.PathLike[str]) -> Path:
    """Find the folder of a preset, downloaded if it is elsewhere.

    Args:
        preset: The name of a bundled preset, a folder that `save_to_preset` wrote, or one of
            `hf://USER/REPO`, `kaggle://USER/MODEL/FRAMEWORK/VARIATION`,
            `https://…/NAME.zip#sha256=…`.

    Returns:
        The folder.

    Raises:
        PresetError: If there is no such preset, or it cannot be had; the message says what is
            accepted.
        ImportError: If the handle needs an extra that is not installed.
    """
    if is_remote(preset):
        return fetch_preset(str(preset))
    names = preset_names()
    if str(preset) in names:
        candidates = [Path(preset), *(parent / preset for parent in _FOLDERS)]
    else:
        candidates = [Path(preset)]
    for folder in candidates:
        # A folder here comes before a bundled preset of the same name.
        if (folder / CONFIG).is_file():
            return folder
    bundled = ", ".join(repr(name) for name in names) or "none bundled"
    raise PresetError(
        f"`preset` must be one of {bundled}, a folder with a {CONFIG}, hf://USER/REPO, "
        "kaggle://USER/MODEL/FRAMEWORK/VARIATION, or https://….zip#sha256=…. "
        f"Received: preset={str(preset)!r}"
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read what is known of a preset: versions, parameters, checksums.

    Args:
        folder: Folder of the preset.

    Returns:
        The content of its `metadata.json`.

    Raises:
        PresetError: If it cannot be read.
    """
    return read_json(folder / METADATA)
