"""Load, save and share models as presets."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from keras_rpe.models.presets.card import is_generated, model_card
from keras_rpe.models.presets.files import (
    CARD,
    CONFIG,
    FILES,
    MAX_JSON_BYTES,
    METADATA,
    WEIGHTS,
    PresetError,
    build_model,
    check_shapes,
    copy_member,
    first_line,
    load_weights,
    parse_json,
    read_json,
    sha256,
    weight_shapes,
)
from keras_rpe.models.presets.source import hugging_face_repo, kaggle_handle
from keras_rpe.optional_import import optional_import
from keras_rpe.version import __version__

_MAX_RANDOM_BYTES = 4_000_000_000


def load_preset(
    folder: Path, weights: bool = True, trusted_packages: Sequence[str] = ()
) -> keras.Model:
    """Make the model of a preset.

    Nothing but classes of keras_rpe, Keras and the trusted packages is made, no code of the preset
    is run, a file that differs from its checksum is refused, and so are weights that do not fit,
    before memory is allocated.

    Args:
        folder: Folder of the preset.
        weights: Whether to load the weights, or leave them random.
        trusted_packages: Further packages whose classes may be made, such as "keras_hub".

    Returns:
        The model, not compiled.

    Raises:
        PresetError: If a file is missing, damaged or refused, or not of such a model.
    """
    checked_files(folder, (CONFIG, WEIGHTS) if weights else (CONFIG,))
    config, name = read_json(folder / CONFIG), f"The preset file {folder / CONFIG}"
    path = folder / WEIGHTS
    if not weights:
        return build_model(config, name, _check_size, trusted_packages)
    shapes = weight_shapes(path)
    model = build_model(config, name, lambda v: check_shapes(shapes, v, path), trusted_packages)
    load_weights(model, path)
    return model


def checked_files(folder: Path, names: Sequence[str]) -> None:
    """Check files of a preset against their checksums.

    Args:
        folder: Folder of the preset.
        names: Names of the files.

    Raises:
        PresetError: If one is missing or damaged.
    """
    checksums = read_json(folder / METADATA).get("sha256")
    for name in names:
        expected = checksums.get(name) if isinstance(checksums, dict) else None
        path = folder / name
        if not path.is_file() or expected != sha256(path):
            raise PresetError(
                f"The preset file {path} is missing or damaged: its SHA-256 is not the one in "
                f"{METADATA}."
            )


def _check_size(variables: list[Any]) -> None:
    size = 4 * sum(math.prod(variable.shape) for variable in variables)
    if size > _MAX_RANDOM_BYTES:
        raise PresetError(f"The preset is refused: its weights would take {size:,} bytes.")


def load_keras_file(
    path: str | os.PathLike[str], trusted_packages: Sequence[str] = ()
) -> keras.Model:
    """Load a keras_rpe model that `model.save` wrote, checked like a preset before it is made.

    `keras.saving.load_model` is the way for files of one's own: it also restores how a model was
    compiled, and the state of its optimizer.

    Args:
        path: A `.keras` file.
        trusted_packages: Packages other than keras and keras_rpe whose classes may be made, such
            as "keras_hub".

    Returns:
        The model, not compiled.

    Raises:
        PresetError: If it is no such file, damaged, names other classes or ones that can run code,
            or its weights do not fit.

    Example:
        >>> import tempfile
        >>> from keras_rpe.models import InstanceSegmenter, load_keras_file
        >>> path = tempfile.mkdtemp() + "/model.keras"
        >>> InstanceSegmenter("unet_small", embedding_dim=8).save(path)
        >>> load_keras_file(path).embedding_dim
        8
    """
    file_path = Path(path)
    name = f"The model {file_path}"
    with tempfile.TemporaryDirectory(prefix="keras_rpe-") as folder:
        weights = Path(folder) / WEIGHTS
        try:
            with zipfile.ZipFile(file_path) as file:
                config = file.open(CONFIG).read(MAX_JSON_BYTES + 1)
                copy_member(file, file.getinfo(WEIGHTS), weights, name)
        except PresetError:
            raise
        except Exception as error:
            # Damaged zip files raise BadZipFile, zlib.error, KeyError, EOFError and more.
            raise PresetError(
                f"{name} is damaged or of another kind: {first_line(error)}"
            ) from error
        content = parse_json(config, name)
        shapes = weight_shapes(weights)
        model = build_model(
            content, name, lambda v: check_shapes(shapes, v, file_path), trusted_packages
        )
        load_weights(model, weights)
    return model


def save_preset(
    model: keras.Model, folder: str | os.PathLike[str], notes: dict[str, Any] | None = None
) -> None:
    """Write the configuration, the weights and the card of a model into a folder.

    The files are written under temporary names and put in place at the end, the one with the
    checksums last, so a preset is whole or refused by `load_preset`.

    Args:
        model: The model.
        folder: The folder, made if it is missing; files of other names in it are kept, and so is a
            card that someone wrote.
        notes: Further entries of the metadata, such as figures of an evaluation; those that
            `model_card` knows come into the card.

    Raises:
        TypeError: If the notes cannot be written as JSON.
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
            "weights_bytes": (temporary / WEIGHTS).stat().st_size,
            "date_saved": datetime.now(UTC).strftime("%Y-%m-%d"),
        }
        names = [WEIGHTS, CONFIG]
        if not (target / CARD).is_file() or is_generated(target / CARD):
            card = model_card(target.resolve().name, metadata, config)
            (temporary / CARD).write_text(card, encoding="utf-8")
            names.append(CARD)
        metadata["sha256"] = {name: sha256(temporary / name) for name in names}
        (temporary / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
        for name in (*names, METADATA):
            (temporary / name).replace(target / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
        keras_rpe.models.presets.files.PresetError: `handle` must be hf://USER/REPO or ...
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
