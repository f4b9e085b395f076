"""Readers of checkpoints of other frameworks, one file a format; none executes what it reads."""

from keras_rpe.checkpoints.matconvnet import MatConvNetLayer, MatConvNetNetwork, read_matconvnet
from keras_rpe.checkpoints.report import CheckpointError, ConversionReport
from keras_rpe.checkpoints.torch import read_safetensors, read_torch_file

__all__ = [
    "CheckpointError",
    "ConversionReport",
    "MatConvNetLayer",
    "MatConvNetNetwork",
    "read_matconvnet",
    "read_safetensors",
    "read_torch_file",
]


def __dir__() -> list[str]:
    return __all__
