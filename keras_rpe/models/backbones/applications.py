"""Networks of `keras.applications` and ResNets, which give their features at several strides."""

from __future__ import annotations

import warnings
from typing import Any

import keras

# Of torchvision: RGB in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


def _imagenet_input(image: keras.KerasTensor, mode: str) -> keras.KerasTensor:
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


def applications_backbone(name: str, weights: str | None = None) -> keras.Model:
    """Build a network of keras.applications that gives its features at strides 2 to 32.

    The features of VGG16 at strides 2 to 16 are taken before pooling; its map at stride 1 is left
    out. `vgg16_torchvision` takes the pixels that torchvision's weights were trained with.
    """
    constructor, mode, taps = _NETWORKS[name]
    inputs = keras.Input((None, None, 3), name="image")
    x = _imagenet_input(inputs, mode)
    with warnings.catch_warnings():
        # MobileNet warns that its weights are of 224 x 224 pixels; convolutions take any size.
        warnings.filterwarnings("ignore", "`input_shape` is undefined")
        network = getattr(keras.applications, constructor)(
            include_top=False, weights=weights, input_tensor=x
        )
    outputs = {f"P{i}": network.get_layer(tap).output for i, tap in enumerate(taps, start=1)}
    return keras.Model(inputs, outputs, name=name)


_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
RESNETS = tuple(
    f"resnet{depth}{origin}{dense}"
    for origin in ("", "_torchvision")
    for dense in ("", "_os8")
    for depth in _BLOCKS
)


def resnet(name: str, weights: str | None = None) -> keras.Model:
    """Build a ResNet that gives its features at strides 2 to 32, or 2 to 8 for `_os8`.

    He et al. (CVPR 2016). Names that end in `_os8` have an output stride of 8: the strides of the
    last two stages are replaced by dilations of 2 and 4, as by Chen et al. (DeepLab, 2015), so that
    the same weights see the same pixels. `_torchvision` computes what torchvision's network does.
    """
    depth = next(depth for depth in _BLOCKS if name.startswith(f"resnet{depth}"))
    torchvision, dense = "_torchvision" in name, name.endswith("_os8")
    inputs = keras.Input((None, None, 3), name="image")
    x = _imagenet_input(inputs, "torchvision" if torchvision else "caffe")
    # Layers have the names of keras.applications, by which weights are found.
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = _conv_norm(x, 64, 7, "conv1", torchvision, strides=2)
    x = keras.layers.Activation("relu", name="conv1_relu")(x)
    outputs = {"P1": x}
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    dilation, level = 1, 2
    for stage, blocks in enumerate(_BLOCKS[depth], start=2):
        dilated = dense and stage > 3
        stride = 1 if stage == 2 or dilated else 2
        level += stride == 2
        before, dilation = dilation, dilation * (2 if dilated else 1)
        for block in range(1, blocks + 1):
            # A stride in the 3x3 convolution comes after its own pixels were chosen.
            rate = before if block == 1 and torchvision else dilation
            x = _bottleneck(
                x,
                64 * 2 ** (stage - 2),
                stride if block == 1 else 1,
                rate,
                f"conv{stage}_block{block}",
                torchvision,
            )
        outputs[f"P{level}"] = x
    model = keras.Model(inputs, outputs, name=name)
    if weights is not None:
        network = getattr(keras.applications, f"ResNet{depth}")
        source = network(include_top=False, weights=weights)
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(source.get_layer(layer.name).get_weights())
    return model


def _bottleneck(
    x: keras.KerasTensor, filters: int, stride: int, dilation: int, name: str, torchvision: bool
) -> keras.KerasTensor:
    # torchvision's bottlenecks stride in the 3x3 convolution ("v1.5"), those of keras.applications
    # in the first 1x1 convolution.
    first, middle = (1, stride) if torchvision else (stride, 1)
    shortcut = x
    if name.endswith("_block1"):
        shortcut = _conv_norm(x, 4 * filters, 1, f"{name}_0", torchvision, strides=stride)
    x = _conv_norm(x, filters, 1, f"{name}_1", torchvision, strides=first)
    x = keras.layers.Activation("relu", name=f"{name}_1_relu")(x)
    if middle == 2:  # "same" would pad only one side.
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_2_pad")(x)
    padding = "valid" if middle == 2 else "same"
    x = _conv_norm(
        x,
        filters,
        3,
        f"{name}_2",
        torchvision,
        strides=middle,
        padding=padding,
        dilation_rate=dilation,
    )
    x = keras.layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = _conv_norm(x, 4 * filters, 1, f"{name}_3", torchvision)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.Activation("relu", name=f"{name}_out")(x)


def _conv_norm(
    x: keras.KerasTensor, filters: int, size: int, name: str, torchvision: bool, **options: Any
) -> keras.KerasTensor:
    # torchvision's convolutions have no biases.
    bias, epsilon = (False, 1e-5) if torchvision else (True, 1.001e-5)
    conv = keras.layers.Conv2D(filters, size, use_bias=bias, name=f"{name}_conv", **options)
    return keras.layers.BatchNormalization(epsilon=epsilon, name=f"{name}_bn")(conv(x))
