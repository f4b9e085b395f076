"""Presets that are elsewhere: on Hugging Face, on Kaggle, or at an address with a checksum."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from keras_rpe.models.presets.model_config import first_line
from keras_rpe.models.presets.preset_archive import fetch_archive
from keras_rpe.models.presets.preset_error import PresetError
from keras_rpe.models.presets.preset_files import CONFIG, FILES
from keras_rpe.optional_import import optional_import

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUGGING_FACE = re.compile(rf"hf://(?P<repo>{_NAME}/{_NAME})(@(?P<revision>{_NAME}))?")
_KAGGLE = re.compile(rf"kaggle://(?P<handle>{_NAME}/{_NAME}/{_NAME}/{_NAME}(/\d{{1,6}})?)")


def is_remote(preset: str | os.PathLike[str]) -> bool:
    """Whether a preset is an address rather than a name or a folder.

    Example:
        >>> from keras_rpe.models.presets.preset_source import is_remote
        >>> is_remote("hf://user/repo"), is_remote("nuclei")
        (True, False)
    """
    return "://" in str(preset)


def hugging_face_repo(handle: str) -> tuple[str, str | None] | None:
    """Repository and revision of `hf://USER/REPO[@REVISION]`, or `None` for another handle."""
    match = _HUGGING_FACE.fullmatch(handle)
    return (match["repo"], match["revision"]) if match else None


def kaggle_handle(handle: str) -> str | None:
    """What follows `kaggle://` in such a handle, or `None` for another one."""
    match = _KAGGLE.fullmatch(handle)
    return match["handle"] if match else None


def fetch_preset(handle: str) -> Path:
    """Download a preset into the cache of its source.

    Args:
        handle: `hf://USER/REPO` (or `…@REVISION`), `kaggle://USER/MODEL/FRAMEWORK/VARIATION` (or
            `…/VERSION`), or `https://…/NAME.zip#sha256=…`.

    Returns:
        A folder with the files of the preset.

    Raises:
        PresetError: If the handle is none of these, or the preset cannot be downloaded.
        ImportError: If the package of the hub is not installed.
    """
    if repo := hugging_face_repo(handle):
        hub: Any = optional_import("huggingface_hub", "hub")
        folder = _fetch(
            handle,
            lambda: hub.snapshot_download(repo[0], revision=repo[1], allow_patterns=list(FILES)),
        )
    elif name := kaggle_handle(handle):
        kagglehub: Any = optional_import("kagglehub", "hub")
        folder = _fetch(handle, lambda: kagglehub.model_download(name))
    elif handle.startswith("https://"):
        folder = fetch_archive(handle)
    else:
        raise PresetError(
            "`preset` must be hf://USER/REPO, kaggle://USER/MODEL/FRAMEWORK/VARIATION or "
            f"https://….zip#sha256=… where it is an address. Received: preset={handle!r}"
        )
    if not (folder / CONFIG).is_file():
        raise PresetError(f"The preset {handle} has no {CONFIG}.")
    return folder


def _fetch(handle: str, download: Any) -> Path:
    try:
        return Path(download())
    except Exception as error:
        # The hubs raise errors of many kinds: no network, no access, no such repository.
        raise PresetError(
            f"The preset {handle} cannot be downloaded: {first_line(error)}"
        ) from error
