"""A light convolutional encoder that trains on a CPU from random weights."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def unet_encoder(
    widths: Sequence[int] = (32, 64, 128, 192), blocks: int = 2, name: str = "unet_small"
) -> keras.Model:
    """Build the contracting half of a U-Net with a stem of stride 2.

    Ronneberger et al. (MICCAI 2015), with batch normalisation, and strided convolutions in place
    of pooling. Plain convolutions are faster on a CPU than the depthwise ones of mobile networks.

    Args:
        widths: Channels at strides 2, 4, 8, …
        blocks: Convolutions at each stride.
        name: Name of the model.

    Returns:
        A model from images `(batch, H, W, 3)`, floats in [0, 1], to a dictionary of features `P1`
        (stride 2), `P2` (stride 4), …

    Example:
        >>> from keras_rpe.models.backbones import unet_encoder
        >>> sorted(unet_encoder((8, 16)).output)
        ['P1', 'P2']
    """
    x = inputs = keras.Input((None, None, 3), name="image")
    outputs = {}
    for level, width in enumerate(widths, start=1):
        for block in range(blocks):
            x = keras.layers.Conv2D(
                width,
                # The stem sees 5 pixels, so that no fine detail falls between its strides.
                5 if level == 1 and block == 0 else 3,
                strides=2 if block == 0 else 1,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                name=f"P{level}_conv{block}",
            )(x)
            x = keras.layers.BatchNormalization(name=f"P{level}_norm{block}")(x)
            x = keras.layers.ReLU(name=f"P{level}_relu{block}")(x)
        outputs[f"P{level}"] = x
    return keras.Model(inputs, outputs, name=name)
