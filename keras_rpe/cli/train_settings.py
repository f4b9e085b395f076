"""The settings of a training run, kept beside it so that it continues as it began."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_rpe.written_file import write_file

_FILE = "settings.json"


def names_digest(names: Sequence[str]) -> str:
    """Sum up the names of images: how many they are, and a hash of them.

    Example:
        >>> names_digest(["a", "b"])
        '2 images (59900c43)'
    """
    digest = hashlib.blake2b("\n".join(sorted(names)).encode(), digest_size=4).hexdigest()
    return f"{len(names)} images ({digest})"


def check_settings(run: Path, settings: dict[str, Any]) -> None:
    """Check that a run is new, or was started with these settings.

    Args:
        run: Folder of the run.
        settings: Its settings by the names of their options.

    Raises:
        ValueError: If it was started with others, or by something else; the message names the
            differences.
    """
    path = run / _FILE
    if not path.exists():
        if any(run.glob("epoch-*")):
            raise ValueError(
                f"--out {run} holds a training run without {_FILE}, choose another folder."
            )
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        before.get("folder")
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, choose another folder with --out.") from error
    differences = [
        f"{_option(key)} {_shown(before.get(key))}, not {_shown(value)}"
        for key, value in settings.items()
        if before.get(key) != value
    ]
    if differences:
        raise ValueError(
            f"The run in {run} was started with {'; '.join(differences)}: repeat its settings, or "
            "choose another folder with --out."
        )


def write_settings(run: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run, whole or not at all.

    Args:
        run: Folder of the run.
        settings: Its settings by the names of their options.

    Raises:
        OSError: If the file cannot be written.
    """
    write_file(run / _FILE, json.dumps(settings, indent=2) + "\n")


def _option(key: str) -> str:
    if key in ("folder", "image_names"):
        return {"folder": "FOLDER", "image_names": "a FOLDER of"}[key]
    return "--" + key.replace("_", "-")


def _shown(value: Any) -> Any:
    return "left out" if value is None else value
