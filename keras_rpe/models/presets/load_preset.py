"""The model of a preset's folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_rpe.models.presets.model_config import build_model
from keras_rpe.models.presets.preset_error import PresetError
from keras_rpe.models.presets.preset_files import CONFIG, METADATA, WEIGHTS, read_json, sha256
from keras_rpe.models.presets.weights_file import check_shapes, load_weights, weight_shapes

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
