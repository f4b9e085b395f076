"""Networks of this project, made to be trained from random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_rpe.arguments import check_choice, check_integer


def unet_encoder(
    widths: Sequence[int] = (32, 64, 128, 192),
    blocks: int = 2,
    stem_stride: int = 2,
    name: str = "unet_small",
) -> keras.Model:
    """Build the contracting half of a U-Net.

    Ronneberger et al. (MICCAI 2015), with batch normalization, and strided convolutions in place
    of pooling. Plain convolutions are faster on a CPU than the depthwise ones of mobile networks.

    Args:
        widths: Channels at strides S, 2·S, 4·S, …, S being that of the stem; from 1.
        blocks: Convolutions at each stride; from 1.
        stem_stride: 2, or 1 for small images whose details are as fine as a pixel, at four times
            the work.
        name: Name of the model.

    Returns:
        A model from images `(batch, H, W, 3)`, floats in [0, 1], to a dictionary of features: `P1`
        (stride 2), `P2` (stride 4), …; with a stem of stride 1, `P0`, `P1`, …

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from keras_rpe.models.backbones import unet_encoder
        >>> sorted(unet_encoder((8, 16)).output)
        ['P1', 'P2']
    """
    if not widths:
        raise ValueError(f"`widths` must be one or more integers. Received: widths={widths!r}")
    for width in widths:
        check_integer("widths", width)
    check_integer("blocks", blocks)
    check_choice("stem_stride", stem_stride, (1, 2))
    x = inputs = keras.Input((None, None, 3), name="image")
    outputs = {}
    stem = stem_stride - 1  # The level of the finest features.
    for level, width in enumerate(widths, start=stem):
        for block in range(blocks):
            x = keras.layers.Conv2D(
                width,
                # The stem sees 5 pixels, so that no fine detail falls between its strides.
                5 if level == stem and block == 0 else 3,
                strides=2 if block == 0 and level > 0 else 1,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                name=f"P{level}_conv{block}",
            )(x)
            x = keras.layers.BatchNormalization(name=f"P{level}_norm{block}")(x)
            x = keras.layers.ReLU(name=f"P{level}_relu{block}")(x)
        outputs[f"P{level}"] = x
    return keras.Model(inputs, outputs, name=name)


_STAGES = (2, 3, 4, 5)
_BLOCKS = 3
_EPSILON = 1e-5
# Of the images of the tutorial, whose pixels are in [0, 1].
_AVERAGE_IMAGE = (0.0717, 0.0820, 0.0715)


def digits_network(
    average_image: Sequence[float] = _AVERAGE_IMAGE,
    embedding_dim: int | None = None,
    name: str = "digits",
) -> keras.Model:
    """Build the residual network of the digits tutorial of Kong & Fowlkes (CVPR 2018).

    A 3×3 convolution and twelve bottlenecks (He et al., CVPR 2016), all at stride 1, of 1.25
    million parameters. The names of the layers are those of the authors' checkpoints.

    Args:
        average_image: Red, green and blue in [0, 1] that are subtracted from each pixel.
        embedding_dim: If given, the authors' last layer is added: a 3×3 convolution to that many
            channels, 3 in the tutorial, whose output is not normalized. A backbone needs none.
        name: Name of the model.

    Returns:
        A model from images `(batch, H, W, 3)`, floats in [0, 1], to a dictionary of the features
        `P0` (stride 1, 512 channels) and, if asked for, `embedding` `(batch, H, W, embedding_dim)`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from keras_rpe.models.backbones import digits_network
        >>> digits_network().output["P0"].shape
        (None, None, None, 512)
    """
    average = [float(value) for value in average_image]
    if len(average) != 3 or not all(0.0 <= value <= 1.0 for value in average):
        raise ValueError(
            f"`average_image` must be three numbers in [0, 1]. Received: {average_image!r}"
        )
    if embedding_dim is not None:
        check_integer("embedding_dim", embedding_dim)
    inputs = keras.Input((None, None, 3), name="image")
    x = keras.layers.Rescaling(1.0, offset=[-value for value in average], name="centered")(inputs)
    x = _normalized(x, 32, 3, "conv1")
    x = keras.layers.ReLU(name="conv1_relu")(x)
    for stage in _STAGES:
        for block in range(1, _BLOCKS + 1):
            x = _bottleneck(x, 2 ** (stage + 2), f"conv{stage}_{block}", adapt=block == 1)
    outputs = {"P0": x}
    if embedding_dim is not None:
        outputs["embedding"] = keras.layers.Conv2D(
            embedding_dim, 3, padding="same", name="res6_conv"
        )(x)
    return keras.Model(inputs, outputs, name=name)


def _bottleneck(x: Any, width: int, name: str, adapt: bool) -> Any:
    shortcut = _normalized(x, 4 * width, 1, f"{name}_adapt_conv") if adapt else x
    for part, size in (("a", 1), ("b", 3)):
        x = _normalized(x, width, size, name + part)
        x = keras.layers.ReLU(name=f"{name}{part}_relu")(x)
    x = _normalized(x, 4 * width, 1, f"{name}c")
    x = keras.layers.Add(name=f"{name}_sum")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _normalized(x: Any, filters: int, size: int, name: str) -> Any:
    x = keras.layers.Conv2D(
        filters,
        size,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return keras.layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
