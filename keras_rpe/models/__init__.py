"""Task models, backbones and presets."""

from keras_rpe.models.boundary_detector import BoundaryDetector
from keras_rpe.models.instance_segmenter import InstanceSegmenter
from keras_rpe.models.object_proposer import ObjectProposer
from keras_rpe.models.presets import PresetError, load_keras_file, preset_names, upload_to_hub
from keras_rpe.models.semantic_segmenter import SemanticSegmenter
from keras_rpe.models.task import Task
from keras_rpe.results import Boundaries, ClassMap, Instances, Proposals

__all__ = [
    "Boundaries",
    "BoundaryDetector",
    "ClassMap",
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


def __dir__() -> list[str]:
    return __all__
