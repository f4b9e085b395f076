"""Presets put where others can load them from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from keras_rpe.models.presets.load_preset import checked_files
from keras_rpe.models.presets.model_config import first_line
from keras_rpe.models.presets.preset_error import PresetError
from keras_rpe.models.presets.preset_files import CONFIG, FILES, METADATA, WEIGHTS, read_json
from keras_rpe.models.presets.preset_source import hugging_face_repo, kaggle_handle
from keras_rpe.optional_import import optional_import


def upload_to_hub(folder: str | os.PathLike[str], handle: str, private: bool = False) -> None:
    """Upload the preset in a folder, so that `from_preset(handle)` loads it.

    Log in first with the command of the hub, `hf auth login`, or a Kaggle API token. Only the
    files of the preset are sent, and only if they have their checksums.

    Args:
        folder: Folder that `save_to_preset` wrote.
        handle: `hf://USER/REPO`, made if there is none, or
            `kaggle://USER/MODEL/FRAMEWORK/VARIATION`.
        private: Whether a new repository on Hugging Face is private.

    Raises:
        PresetError: If the preset is damaged, the handle another, or the upload fails.
        ImportError: If the package of the hub is not installed.

    Example:
        >>> from keras_rpe.models import upload_to_hub
        >>> upload_to_hub("runs/mine/preset", "ftp://somewhere")
        Traceback (most recent call last):
        ...
        keras_rpe.models.presets.preset_error.PresetError: `handle` must be hf://USER/REPO or ...
    """
    repo, name = hugging_face_repo(handle), kaggle_handle(handle)
    if (repo is None or repo[1] is not None) and name is None:
        raise PresetError(
            "`handle` must be hf://USER/REPO or kaggle://USER/MODEL/FRAMEWORK/VARIATION. "
            f"Received: handle={handle!r}"
        )
    preset = Path(folder)
    checked_files(preset, (CONFIG, WEIGHTS))
    try:
        if repo is not None:
            api: Any = optional_import("huggingface_hub", "hub").HfApi()
            api.create_repo(repo[0], private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo[0],
                folder_path=str(preset),
                allow_patterns=list(FILES),
                commit_message="Upload a preset of keras_rpe",
            )
        else:
            _upload_to_kaggle(preset, name)
    except ImportError:
        raise
    except Exception as error:
        # The hubs raise errors of many kinds: no network, no token, no access.
        raise PresetError(f"The upload to {handle} has failed: {first_line(error)}") from error


def _upload_to_kaggle(preset: Path, name: str | None) -> None:
    kagglehub: Any = optional_import("kagglehub", "hub")
    others = [path.name for path in preset.iterdir() if path.name not in FILES]
    kagglehub.model_upload(
        name,
        str(preset),
        license_name=read_json(preset / METADATA).get("licence"),
        ignore_patterns=others,
    )
