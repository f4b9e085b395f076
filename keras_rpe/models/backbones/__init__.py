"""Networks from images to features at several strides."""

from keras_rpe.models.backbones.applications import APPLICATIONS, applications_backbone
from keras_rpe.models.backbones.backbone import backbone_names, make_backbone, pyramid
from keras_rpe.models.backbones.unet_encoder import unet_encoder

__all__ = [
    "APPLICATIONS",
    "applications_backbone",
    "backbone_names",
    "make_backbone",
    "pyramid",
    "unet_encoder",
]
