"""Networks from images to features at several strides."""

from keras_rpe.models.backbones.applications import APPLICATIONS, applications_backbone
from keras_rpe.models.backbones.backbone import backbone_names, make_backbone, pyramid
from keras_rpe.models.backbones.batch_statistics import use_batch_statistics
from keras_rpe.models.backbones.digits_network import digits_network
from keras_rpe.models.backbones.efficientnet_lite import EFFICIENTNET_LITE, efficientnet_lite
from keras_rpe.models.backbones.matconvnet import load_matconvnet_weights
from keras_rpe.models.backbones.resnet import RESNETS, resnet
from keras_rpe.models.backbones.unet_encoder import unet_encoder
from keras_rpe.models.backbones.weights import TORCH_TWINS, load_backbone_weights

__all__ = [
    "APPLICATIONS",
    "EFFICIENTNET_LITE",
    "RESNETS",
    "TORCH_TWINS",
    "applications_backbone",
    "backbone_names",
    "digits_network",
    "efficientnet_lite",
    "load_backbone_weights",
    "load_matconvnet_weights",
    "make_backbone",
    "pyramid",
    "resnet",
    "unet_encoder",
    "use_batch_statistics",
]


def __dir__() -> list[str]:
    return __all__
