"""Readers of checkpoints of other frameworks, one file a format; none executes what it reads."""

from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.conversion_report import ConversionReport
from keras_rpe.checkpoints.matconvnet_file import read_matconvnet
from keras_rpe.checkpoints.matconvnet_layer import MatConvNetLayer
from keras_rpe.checkpoints.matconvnet_network import MatConvNetNetwork
from keras_rpe.checkpoints.safetensors_file import read_safetensors
from keras_rpe.checkpoints.torch_file import read_torch_file

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
