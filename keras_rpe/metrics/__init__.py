"""Figures of merit for instance segmentation and boundary detection."""

from keras_rpe.metrics.boundary_benchmark import boundary_benchmark
from keras_rpe.metrics.boundary_figures import BoundaryFigures
from keras_rpe.metrics.boundary_matching import match_boundaries
from keras_rpe.metrics.instance_average_precision import InstanceAveragePrecision
from keras_rpe.metrics.instance_panoptic_quality import InstancePanopticQuality
from keras_rpe.metrics.matching import Matching, matching
from keras_rpe.metrics.matching_dataset import average_precision, matching_dataset

__all__ = [
    "BoundaryFigures",
    "InstanceAveragePrecision",
    "InstancePanopticQuality",
    "Matching",
    "average_precision",
    "boundary_benchmark",
    "match_boundaries",
    "matching",
    "matching_dataset",
]
