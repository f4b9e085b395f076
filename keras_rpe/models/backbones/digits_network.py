"""The network of the digits tutorial: twelve residual bottlenecks at full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

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
        embedding_dim: With a number, the authors' last layer is added: a 3×3 convolution to so many
            channels, 3 in the tutorial; its output is not normalised. A network that is to be a
            backbone needs none.
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
    if embedding_dim is not None and embedding_dim < 1:
        raise ValueError(f"`embedding_dim` must be at least 1. Received: {embedding_dim!r}")
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
