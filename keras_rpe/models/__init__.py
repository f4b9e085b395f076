"""Task models, backbones and presets."""

from keras_rpe.models.boundary_detector import BoundaryDetector
from keras_rpe.models.instance_segmenter import InstanceSegmenter
from keras_rpe.models.instances import Instances
from keras_rpe.models.object_proposer import ObjectProposer
from keras_rpe.models.presets import PresetError, load_keras_file, preset_names, upload_to_hub
from keras_rpe.models.proposals import Proposals
from keras_rpe.models.semantic_segmenter import SemanticSegmenter
from keras_rpe.models.task import Task

__all__ = [
    "BoundaryDetector",
    "InstanceSegmenter",
    "Instances",
    "ObjectProposer",
    "PresetError",
    "Proposals",
    "SemanticSegmenter",
    "Task",
    "load_keras_file",
    "preset_names",
    "upload_to_hub",
]
