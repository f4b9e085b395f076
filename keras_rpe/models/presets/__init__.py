"""Presets: folders with the configuration and the weights of a trained model."""

from keras_rpe.models.presets.card import model_card
from keras_rpe.models.presets.files import CARD, CONFIG, FILES, METADATA, WEIGHTS, PresetError
from keras_rpe.models.presets.load import (
    PresetRow,
    list_presets,
    load_keras_file,
    load_preset,
    preset_folder,
    preset_names,
    save_preset,
    upload_to_hub,
)

__all__ = [
    "CARD",
    "CONFIG",
    "FILES",
    "METADATA",
    "WEIGHTS",
    "PresetError",
    "PresetRow",
    "list_presets",
    "load_keras_file",
    "load_preset",
    "model_card",
    "preset_folder",
    "preset_names",
    "save_preset",
    "upload_to_hub",
]


def __dir__() -> list[str]:
    return __all__
