"""Figures of merit for instance segmentation and boundary detection."""

from keras_rpe.metrics.average_recall import AverageRecall, average_recall
from keras_rpe.metrics.boundary_benchmark import boundary_benchmark
from keras_rpe.metrics.boundary_figures import BoundaryFigures
from keras_rpe.metrics.boundary_matching import match_boundaries
from keras_rpe.metrics.class_iou import class_iou
from keras_rpe.metrics.detections import Detections
from keras_rpe.metrics.ground_truth import GroundTruth
from keras_rpe.metrics.instance_average_precision import InstanceAveragePrecision
from keras_rpe.metrics.instance_panoptic_quality import InstancePanopticQuality
from keras_rpe.metrics.mask_average_precision import (
    MaskAveragePrecision,
    mask_average_precision,
)
from keras_rpe.metrics.matching import Matching, matching
from keras_rpe.metrics.matching_dataset import average_precision, matching_dataset
from keras_rpe.metrics.panoptic_quality import PanopticQuality, panoptic_quality
from keras_rpe.metrics.semantic_mean_iou import SemanticMeanIoU

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
