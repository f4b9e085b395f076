"""ResNets as keras.applications and as torchvision compute them, at output stride 32 or 8."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras

from keras_rpe.models.backbones.applications import (
    imagenet_input,
    no_imagenet_weights,
    with_imagenet_weights,
)
from keras_rpe.models.backbones.weights import load_all_weights

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@dataclass(frozen=True)
class _Variant:
    depth: int
    # torchvision's bottlenecks stride in the 3x3 convolution ("v1.5") and have no biases; those of
    # keras.applications stride in the first 1x1 convolution.
    torchvision: bool = False
    dilated: bool = False


_VARIANTS = {
    "resnet50": _Variant(50),
    "resnet101": _Variant(101),
    "resnet50_os8": _Variant(50, dilated=True),
    "resnet101_os8": _Variant(101, dilated=True),
    "resnet50_torchvision": _Variant(50, torchvision=True),
    "resnet101_torchvision": _Variant(101, torchvision=True),
    "resnet50_torchvision_os8": _Variant(50, torchvision=True, dilated=True),
    "resnet101_torchvision_os8": _Variant(101, torchvision=True, dilated=True),
}

RESNETS = tuple(_VARIANTS)


def resnet(name: str = "resnet50", weights: str | Path | None = None) -> keras.Model:
    """Build a ResNet that gives its features at strides 2 to 32, or 2 to 8 for `_os8`.

    He et al. (CVPR 2016). Names that end in `_os8` have an output stride of 8: the strides of the
    last two stages are replaced by dilations of 2 and 4, as by Chen et al. (DeepLab, 2015), so that
    the same weights see the same pixels. `_torchvision` computes what torchvision's network does.
    """
    variant = _VARIANTS[name]
    if variant.torchvision and weights == "imagenet":
        raise no_imagenet_weights(name)
    inputs = keras.Input((None, None, 3), name="image")
    x = imagenet_input(inputs, "torchvision" if variant.torchvision else "caffe")
    outputs = _stages(x, variant)
    model = keras.Model(inputs, outputs, name=name)
    if weights == "imagenet":
        network = getattr(keras.applications, f"ResNet{variant.depth}")
        source = with_imagenet_weights(name, lambda: network(include_top=False, weights="imagenet"))
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(source.get_layer(layer.name).get_weights())
    elif weights is not None:
        load_all_weights(model, weights)
    return model


def _stages(x: keras.KerasTensor, variant: _Variant) -> dict[str, keras.KerasTensor]:
    # Layers have the names of keras.applications, by which weights are found.
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = keras.layers.Conv2D(64, 7, strides=2, use_bias=not variant.torchvision, name="conv1_conv")(
        x
    )
    x = _norm(x, "conv1_bn", variant)
    x = keras.layers.Activation("relu", name="conv1_relu")(x)
    outputs = {"P1": x}
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    dilation, level = 1, 2
    for stage, blocks in enumerate(_BLOCKS[variant.depth], start=2):
        dense = variant.dilated and stage > 3
        stride = 1 if stage == 2 or dense else 2
        level += stride == 2
        before, dilation = dilation, dilation * (2 if dense else 1)
        for block in range(1, blocks + 1):
            x = _bottleneck(
                x,
                64 * 2 ** (stage - 2),
                stride if block == 1 else 1,
                # A stride in the 3x3 convolution comes after its own pixels were chosen.
                before if block == 1 and variant.torchvision else dilation,
                f"conv{stage}_block{block}",
                variant,
            )
        outputs[f"P{level}"] = x
    return outputs


def _norm(x: keras.KerasTensor, name: str, variant: _Variant) -> keras.KerasTensor:
    epsilon = 1e-5 if variant.torchvision else 1.001e-5
    return keras.layers.BatchNormalization(epsilon=epsilon, name=name)(x)


def _bottleneck(
    x: keras.KerasTensor, filters: int, stride: int, dilation: int, name: str, variant: _Variant
) -> keras.KerasTensor:
    bias = not variant.torchvision
    first, middle = (1, stride) if variant.torchvision else (stride, 1)
    shortcut = x
    if name.endswith("_block1"):
        shortcut = keras.layers.Conv2D(
            4 * filters, 1, strides=stride, use_bias=bias, name=f"{name}_0_conv"
        )(x)
        shortcut = _norm(shortcut, f"{name}_0_bn", variant)
    x = keras.layers.Conv2D(filters, 1, strides=first, use_bias=bias, name=f"{name}_1_conv")(x)
    x = _norm(x, f"{name}_1_bn", variant)
    x = keras.layers.Activation("relu", name=f"{name}_1_relu")(x)
    if middle == 2:  # "same" would pad only one side.
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_2_pad")(x)
    x = keras.layers.Conv2D(
        filters,
        3,
        strides=middle,
        padding="valid" if middle == 2 else "same",
        dilation_rate=dilation,
        use_bias=bias,
        name=f"{name}_2_conv",
    )(x)
    x = _norm(x, f"{name}_2_bn", variant)
    x = keras.layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = keras.layers.Conv2D(4 * filters, 1, use_bias=bias, name=f"{name}_3_conv")(x)
    x = _norm(x, f"{name}_3_bn", variant)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.Activation("relu", name=f"{name}_out")(x)
