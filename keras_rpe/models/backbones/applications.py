"""Backbones made of `keras.applications`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import keras

from keras_rpe.models.backbones.weights import load_all_weights

# Of torchvision: RGB in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


def imagenet_input(image: keras.KerasTensor, mode: str) -> keras.KerasTensor:
    """Scale images in [0, 1] to what a network was trained with, see `_NETWORKS`."""
    if mode == "torchvision":
        variances = [deviation**2 for deviation in _DEVIATION]
        return keras.layers.Normalization(mean=list(_MEAN), variance=variances)(image)
    if mode == "signed":
        return keras.layers.Rescaling(2.0, offset=-1.0)(image)
    pixels = keras.layers.Rescaling(255.0)(image)
    if mode == "caffe":
        return keras.applications.imagenet_utils.preprocess_input(pixels, mode="caffe")
    return pixels


def with_imagenet_weights(name: str, build: Callable[[], keras.Model]) -> keras.Model:
    """Build a network whose weights Keras downloads, or say in one sentence why it failed."""
    try:
        return build()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"`weights='imagenet'` of {name} are downloaded by Keras, which failed ({reason}): "
            f"pass the path of a weights file instead, such as weights='{name}.weights.h5'. "
            "Received: weights='imagenet'"
        ) from error


def no_imagenet_weights(name: str) -> ValueError:
    """The error of a backbone for which Keras has no weights to download."""
    return ValueError(
        f"`weights` of {name} must be None or the path of a weights file, such as the .pth file of "
        "torchvision for its networks. Received: weights='imagenet'"
    )


_VGG16_TAPS = ("block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3", "block5_pool")
# Constructor; the pixels it takes: "pixels" in [0, 255], "signed" in [-1, 1], "caffe" blue, green
# and red in [0, 255] minus their means, or "torchvision" of mean 0 and deviation 1; and the last
# layer at strides 2, 4, 8, 16 and 32.
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

    The features of VGG16 at strides 2 to 16 are taken before pooling; its map at stride 1 is left
    out. `vgg16_torchvision` takes the pixels that torchvision's weights were trained with.
    """
    constructor, mode, taps = _NETWORKS[name]
    inputs = keras.Input((None, None, 3), name="image")
    x = imagenet_input(inputs, mode)

    def build(source: str | None) -> keras.Model:
        network = getattr(keras.applications, constructor)
        with warnings.catch_warnings():
            # MobileNet warns that its weights are of 224 x 224 pixels; convolutions take any size.
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
