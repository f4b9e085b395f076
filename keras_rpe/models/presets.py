"""Presets: folders with the configuration and the weights of a trained model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from keras_rpe.version import __version__

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

# Where an installed package has the presets, and where a checkout has them.
_FOLDERS = (
    Path(__file__).parents[1] / "saved_models",
    Path(__file__).parents[2] / "saved_models",
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
    """Find the folder of a preset.

    Args:
        preset: The name of a bundled preset, or a folder that `save_to_preset` wrote.

    Returns:
        The folder.

    Raises:
        ValueError: If there is no such preset; the message lists those that there are.
    """
    for folder in (Path(preset), *(parent / preset for parent in _FOLDERS)):
        # A folder here comes before a bundled preset of the same name.
        if (folder / CONFIG).is_file():
            return folder
    names = ", ".join(repr(name) for name in preset_names()) or "none bundled"
    raise ValueError(
        f"`preset` must be one of {names}, or a folder with a {CONFIG}. "
        f"Received: preset={str(preset)!r}"
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read what is known of a preset: versions, parameters, checksums.

    Args:
        folder: Folder of the preset.

    Returns:
        The content of its `metadata.json`.

    Raises:
        ValueError: If it cannot be read.
    """
    return _read_json(folder / METADATA)


def load_preset(folder: Path, load_weights: bool = True) -> keras.Model:
    """Make the model of a preset.

    Nothing but classes of keras_rpe and Keras is made, no code of the preset is run, and a file
    that differs from its checksum is refused.

    Args:
        folder: Folder of the preset.
        load_weights: Whether to load the weights, or leave them random.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: If a file is missing, damaged, or not of such a model.
    """
    config = _read_json(folder / CONFIG)
    metadata = read_metadata(folder)
    checksums = metadata.get("sha256", {})
    for name in (CONFIG, WEIGHTS) if load_weights else (CONFIG,):
        if not (folder / name).is_file() or checksums.get(name) != _sha256(folder / name):
            raise ValueError(
                f"The preset file {folder / name} is missing or damaged: its SHA-256 is not the "
                f"one in {METADATA}."
            )
    if not str(config.get("registered_name", "")).startswith("keras_rpe>"):
        raise ValueError(
            f"The preset file {folder / CONFIG} must describe a keras_rpe model. "
            f"Received: registered_name={config.get('registered_name')!r}"
        )
    try:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        if load_weights:
            model.load_weights(folder / WEIGHTS)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"The preset in {folder} cannot be loaded: {reason[0] if reason else error!r}"
        ) from error
    return model


def save_preset(
    model: keras.Model, folder: str | os.PathLike[str], notes: dict[str, Any] | None = None
) -> None:
    """Write the configuration and the weights of a model into a folder.

    The files are written under temporary names and put in place at the end, the one with the
    checksums last, so a preset is whole or refused by `load_preset`.

    Args:
        model: The model.
        folder: The folder, made if it is missing; files of other names in it are kept.
        notes: Further entries of the metadata, such as figures of an evaluation.

    Raises:
        OSError: If the folder cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
    try:
        config = keras.saving.serialize_keras_object(model)
        for part in ("compile_config", "build_config"):
            config.pop(part, None)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        # Keras writes the state of the optimizer of a compiled model beside its weights.
        plain = keras.saving.deserialize_keras_object(config)
        plain.set_weights(model.get_weights())
        plain.save_weights(temporary / WEIGHTS)
        metadata = {
            **(notes or {}),
            "keras_rpe_version": __version__,
            "keras_version": keras.__version__,
            "parameter_count": model.count_params(),
            "date_saved": datetime.now(UTC).strftime("%Y-%m-%d"),
            "sha256": {name: _sha256(temporary / name) for name in (CONFIG, WEIGHTS)},
        }
        (temporary / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
        for name in (WEIGHTS, CONFIG, METADATA):
            (temporary / name).replace(target / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"The preset file {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"The preset file {path} must hold a JSON object.")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
