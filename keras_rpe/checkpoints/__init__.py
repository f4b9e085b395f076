"""Readers of checkpoints of other frameworks, one file a format; none executes what it reads."""

from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.conversion_report import ConversionReport

__all__ = ["CheckpointError", "ConversionReport"]
