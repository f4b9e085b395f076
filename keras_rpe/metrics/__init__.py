"""Figures of merit for instance segmentation and boundary detection."""

from keras_rpe.metrics.boundaries import BoundaryFigures, boundary_benchmark, match_boundaries
from keras_rpe.metrics.detection import AverageRecall, MaskAveragePrecision
from keras_rpe.metrics.masks import Detections, GroundTruth
from keras_rpe.metrics.matching import Matching, average_precision, matching, matching_dataset
from keras_rpe.metrics.panoptic import PanopticQuality
from keras_rpe.metrics.streaming import (
    InstanceAveragePrecision,
    InstancePanopticQuality,
    SemanticMeanIoU,
    class_iou,
)

__all__ = [
    "AverageRecall",
    "BoundaryFigures",
    "Detections",
    "GroundTruth",
    "InstanceAveragePrecision",
    "InstancePanopticQuality",
    "MaskAveragePrecision",
    "Matching",
    "PanopticQuality",
    "SemanticMeanIoU",
    "average_precision",
    "boundary_benchmark",
    "class_iou",
    "match_boundaries",
    "matching",
    "matching_dataset",
]


def __dir__() -> list[str]:
    return __all__
