"""Figures of merit for instance segmentation."""

from keras_rpe.metrics.instance_average_precision import InstanceAveragePrecision
from keras_rpe.metrics.instance_panoptic_quality import InstancePanopticQuality
from keras_rpe.metrics.matching import Matching, matching
from keras_rpe.metrics.matching_dataset import average_precision, matching_dataset

__all__ = [
    "InstanceAveragePrecision",
    "InstancePanopticQuality",
    "Matching",
    "average_precision",
    "matching",
    "matching_dataset",
]
