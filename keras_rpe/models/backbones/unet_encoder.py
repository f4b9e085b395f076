"""A light convolutional encoder that trains on a CPU from random weights."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def unet_encoder(
    widths: Sequence[int] = (32, 64, 128, 192),
    blocks: int = 2,
    stem_stride: int = 2,
    name: str = "unet_small",
) -> keras.Model:
    """Build the contracting half of a U-Net.

    Ronneberger et al. (MICCAI 2015), with batch normalisation, and strided convolutions in place
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
    if not widths or min(widths) < 1:
        raise ValueError(f"`widths` must be one or more numbers from 1. Received: {widths!r}")
    if blocks < 1:
        raise ValueError(f"`blocks` must be at least 1. Received: blocks={blocks}")
    if stem_stride not in (1, 2):
        raise ValueError(f"`stem_stride` must be 1 or 2. Received: stem_stride={stem_stride!r}")
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
