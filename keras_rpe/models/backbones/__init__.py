"""Networks from images to features at several strides."""

from keras_rpe.models.backbones.backbone import (
    backbone_names,
    make_backbone,
    pyramid,
    use_batch_statistics,
)
from keras_rpe.models.backbones.efficientnet_lite import efficientnet_lite
from keras_rpe.models.backbones.encoders import digits_network, unet_encoder
from keras_rpe.models.backbones.matconvnet import load_matconvnet_weights
from keras_rpe.models.backbones.weights import TORCH_TWINS, load_backbone_weights

__all__ = [
    "TORCH_TWINS",
    "backbone_names",
    "digits_network",
    "efficientnet_lite",
    "load_backbone_weights",
    "load_matconvnet_weights",
    "make_backbone",
    "pyramid",
    "unet_encoder",
    "use_batch_statistics",
]


def __dir__() -> list[str]:
    return __all__
