"""Networks of keras.applications as backbones with a feature map at each stride."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras

from keras_rpe.models.backbones.backbone_weights import load_all_weights
from keras_rpe.models.backbones.imagenet_input import imagenet_input
from keras_rpe.models.backbones.imagenet_weights import no_imagenet_weights, with_imagenet_weights

_VGG16_TAPS = ("block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3", "block5_pool")
# Constructor, the range of pixels it takes, and the last layer at strides 2, 4, 8, 16 and 32.
_NETWORKS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "mobilenet_v2": (
        "MobileNetV2",
        "signed",
        (
            "expanded_conv_project_BN",
            "block_2_add",
            "block_5_add",
            "block_12_add",
            "block_16_project_BN",
        ),
    ),
    "mobilenet_v3_small": (
        "MobileNetV3Small",
        "pixels",
        (
            "conv_bn",
            "expanded_conv_project_bn",
            "expanded_conv_2_add",
            "expanded_conv_7_add",
            "expanded_conv_10_add",
        ),
    ),
    "mobilenet_v3_large": (
        "MobileNetV3Large",
        "pixels",
        (
            "expanded_conv_add",
            "expanded_conv_2_add",
            "expanded_conv_5_add",
            "expanded_conv_11_add",
            "expanded_conv_14_add",
        ),
    ),
    "efficientnet_v2_b0": (
        "EfficientNetV2B0",
        "pixels",
        ("block1a_project_activation", "block2b_add", "block3b_add", "block5e_add", "block6h_add"),
    ),
    "efficientnet_v2_s": (
        "EfficientNetV2S",
        "pixels",
        ("block1b_add", "block2d_add", "block3d_add", "block5i_add", "block6o_add"),
    ),
    "vgg16": ("VGG16", "caffe", _VGG16_TAPS),
    "vgg16_torchvision": ("VGG16", "torchvision", _VGG16_TAPS),
}

APPLICATIONS = tuple(_NETWORKS)


def applications_backbone(name: str, weights: str | Path | None = None) -> keras.Model:
    """Build a network of keras.applications that gives its features at strides 2 to 32.

    Those of VGG16 at strides 2 to 16 are taken before pooling; its map at stride 1 is left out.
    `vgg16_torchvision` takes the range of pixels that torchvision's weights were trained with.

    Args:
        name: One of `APPLICATIONS`.
        weights: `None` for random ones, "imagenet", which Keras downloads (not for
            `vgg16_torchvision`), or the path of a file that `load_backbone_weights` takes.

    Returns:
        A model from images `(batch, H, W, 3)`, floats in [0, 1], to a dictionary of features `P1`
        (stride 2) to `P5` (stride 32).

    Raises:
        ValueError: If the name is unknown, or the weights cannot be had.
        CheckpointError: If the file is damaged or does not fit.

    Example:
        >>> from keras_rpe.models.backbones import applications_backbone
        >>> model = applications_backbone("mobilenet_v2")
        >>> model.output["P2"].shape[-1]
        24
    """
    if name not in _NETWORKS:
        raise ValueError(f"`name` must be one of {', '.join(_NETWORKS)}. Received: name={name!r}")
    constructor, mode, taps = _NETWORKS[name]
    inputs = keras.Input((None, None, 3), name="image")
    x = imagenet_input(inputs, mode)

    def build(source: str | None) -> keras.Model:
        network = getattr(keras.applications, constructor)
        with warnings.catch_warnings():
            # MobileNet warns that its weights are of 224 x 224 pixels; convolutions do not mind.
            warnings.filterwarnings("ignore", "`input_shape` is undefined")
            return network(include_top=False, weights=source, input_tensor=x)

    if weights == "imagenet":
        if mode == "torchvision":
            raise no_imagenet_weights(name)
        network = with_imagenet_weights(name, lambda: build("imagenet"))
    else:
        network = build(None)
    outputs = {f"P{i}": network.get_layer(tap).output for i, tap in enumerate(taps, start=1)}
    model = keras.Model(inputs, outputs, name=name)
    if weights not in (None, "imagenet"):
        load_all_weights(model, weights)
    return model
