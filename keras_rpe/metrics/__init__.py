"""Figures of merit for instance segmentation and boundary detection."""

from keras_rpe.metrics.boundaries import BoundaryFigures, boundary_benchmark, match_boundaries
from keras_rpe.metrics.detection import (
    AverageRecall,
    MaskAveragePrecision,
    average_recall,
    mask_average_precision,
)
from keras_rpe.metrics.masks import Detections, GroundTruth
from keras_rpe.metrics.matching import Matching, average_precision, matching, matching_dataset
from keras_rpe.metrics.panoptic import PanopticQuality, panoptic_quality
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
    "average_recall",
    "boundary_benchmark",
    "class_iou",
    "mask_average_precision",
    "match_boundaries",
    "matching",
    "matching_dataset",
    "panoptic_quality",
]


def __dir__() -> list[str]:
    return __all__
