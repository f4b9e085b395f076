"""A preset's folder of a model."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from keras_rpe.models.presets.model_card import is_generated, model_card
from keras_rpe.models.presets.preset_files import CARD, CONFIG, METADATA, WEIGHTS, sha256
from keras_rpe.version import __version__


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
