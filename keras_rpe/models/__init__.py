"""Task models, backbones and presets."""

from keras_rpe.models.boundary_detector import BoundaryDetector
from keras_rpe.models.instance_segmenter import InstanceSegmenter
from keras_rpe.models.instances import Instances
from keras_rpe.models.presets import PresetError, load_keras_file, preset_names, upload_to_hub
from keras_rpe.models.task import Task

__all__ = [
    "BoundaryDetector",
    "InstanceSegmenter",
    "Instances",
    "PresetError",
    "Task",
    "load_keras_file",
    "preset_names",
    "upload_to_hub",
]
