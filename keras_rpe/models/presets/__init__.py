"""Presets: folders with the configuration and the weights of a trained model."""

from keras_rpe.models.presets.keras_file import load_keras_file
from keras_rpe.models.presets.load_preset import load_preset
from keras_rpe.models.presets.model_card import model_card
from keras_rpe.models.presets.preset_error import PresetError
from keras_rpe.models.presets.preset_files import CARD, CONFIG, FILES, METADATA, WEIGHTS
from keras_rpe.models.presets.preset_folders import preset_folder, preset_names, read_metadata
from keras_rpe.models.presets.save_preset import save_preset
from keras_rpe.models.presets.upload_to_hub import upload_to_hub

__all__ = [
    "CARD",
    "CONFIG",
    "FILES",
    "METADATA",
    "WEIGHTS",
    "PresetError",
    "load_keras_file",
    "load_preset",
    "model_card",
    "preset_folder",
    "preset_names",
    "read_metadata",
    "save_preset",
    "upload_to_hub",
]
