"""From images to embeddings and class logits: the graph before the grouping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_rpe.layers import FeatureFusion, ImageNormalization, PadToMultiple, SphericalEmbedding

Tensor = Any


def pixel_graph(
    features: keras.Model,
    strides: Sequence[int],
    output_stride: int,
    fusion: FeatureFusion,
    embed: SphericalEmbedding,
    num_classes: int,
    percentiles: tuple[float, float] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Build the symbolic tensors from the image to the two heads.

    Args:
        features: Model from images to maps at `strides`, finest first.
        strides: Strides of the maps.
        output_stride: Stride of the embedding map, one of `strides`.
        fusion: Layer that fuses the maps from that stride on.
        embed: Embedding head; the class head has its dtype.
        num_classes: Classes other than the background.
        percentiles: Percentiles of each image that become 0 and 1, or `None`.

    Returns:
        Symbolic images `(batch, H, W, C)`, embeddings `(batch, h, w, D)` and logits
        `(batch, h · stride, w · stride, num_classes + 1)`, of the image padded to the coarsest
        stride.
    """
    images = keras.Input((None, None, None if percentiles else 3), name="image")
    x = ImageNormalization(*percentiles)(images) if percentiles else images
    maps = features(PadToMultiple(strides[-1], name="pad")(x))
    maps = list(maps) if isinstance(maps, (list, tuple)) else [maps]
    fused = fusion(maps[list(strides).index(output_stride) :])
    logits = keras.layers.Conv2DTranspose(
        num_classes + 1,
        2 * output_stride if output_stride > 1 else 1,
        strides=output_stride,
        padding="same",
        dtype=embed.dtype_policy,
        name="classes",
    )(fused)
    return images, embed(fused), logits
