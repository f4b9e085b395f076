"""Task models, backbones and presets."""

from keras_rpe.models.instance_segmenter import InstanceSegmenter
from keras_rpe.models.instances import Instances
from keras_rpe.models.presets import preset_names
from keras_rpe.models.task import Task

__all__ = ["InstanceSegmenter", "Instances", "Task", "preset_names"]
