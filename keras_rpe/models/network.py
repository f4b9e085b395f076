"""From images to embeddings, class logits and the loops of the grouping: the graph of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_rpe.layers import (
    CropLike,
    FeatureFusion,
    ImageNormalization,
    MeanShiftRNN,
    PadToMultiple,
    SphericalEmbedding,
)
from keras_rpe.models.backbones import make_backbone, pyramid
from keras_rpe.ops import precise_dtype

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


class EmbeddingGraph(NamedTuple):
    """What `embedding_graph` builds.

    Attributes:
        images: Symbolic images `(batch, H, W, C)`.
        outputs: Symbolic outputs for training by name: `embedding`, `shift_1` … `shift_T` and
            `semantic`.
        backbone: The network from images to features.
        pixel_network: The model from images to the embeddings before mean shift and the logits,
            both of the image padded to whole strides.
        mean_shift: The loops, or `None`.
        output_stride: Stride of the embedding map.
    """

    images: Tensor
    outputs: dict[str, Tensor]
    backbone: keras.Model
    pixel_network: keras.Model
    mean_shift: MeanShiftRNN | None
    output_stride: int


def embedding_graph(
    backbone: str | keras.Model,
    backbone_weights: str | None,
    *,
    embedding_dim: int,
    num_classes: int,
    iterations: int | None,
    bandwidth: float,
    step_size: float = 1.0,
    trainable_bandwidth: bool = False,
    window_size: int | None,
    coordinates: bool,
    position_periods: Sequence[float] | None,
    output_stride: int | None,
    embed_background: bool,
    fusion_filters: int,
    percentiles: tuple[float, float] | None,
) -> EmbeddingGraph:
    """Build the graph that the tasks share whose embeddings are trained through the grouping.

    Args:
        backbone: A name, or a Keras model from images to features.
        backbone_weights: Weights of a backbone made by name.
        embedding_dim: Dimension D of the embedding.
        num_classes: Classes other than the background.
        iterations: Loops of mean shift; `None`: no mean shift.
        bandwidth: Its kernel width δ.
        step_size: Its η.
        trainable_bandwidth: Whether δ is learned.
        window_size: Side of the windows of the mean shift, or `None`.
        coordinates: Whether the embedding head sees positions.
        position_periods: Periods of the rotation of the embedding with position, or `None`.
        output_stride: Stride of the embedding map; `None`: the finest of the backbone.
        embed_background: Whether the background attracts pixels in the mean shift.
        fusion_filters: Width of the fused features.
        percentiles: Percentiles of each image that become 0 and 1, or `None`.

    Returns:
        The graph.

    Raises:
        ValueError: If an argument is out of its range, or the backbone has no pyramid.
    """
    if not 1 <= num_classes <= 65_535:
        raise ValueError(
            f"`num_classes` must be at least 1 and at most 65535. Received: {num_classes}"
        )
    network = make_backbone(backbone, backbone_weights) if isinstance(backbone, str) else backbone
    features, strides = pyramid(network)
    output_stride = output_stride or strides[0]
    if output_stride not in strides:
        raise ValueError(
            f"`output_stride` must be one of the strides {strides} of the backbone. "
            f"Received: output_stride={output_stride}"
        )
    # The heads and the grouping keep float32 under mixed precision: they are a small part
    # of the work, and 16 bits are too few for the sums of a kernel.
    precise = precise_dtype()
    mean_shift = None
    if iterations is not None:
        mean_shift = MeanShiftRNN(
            iterations,
            bandwidth,
            step_size,
            trainable_bandwidth,
            window_size=window_size,
            dtype=precise,
            name="mean_shift",
        )
    embed = SphericalEmbedding(
        embedding_dim,
        coordinates=coordinates,
        position_periods=position_periods,
        dtype=precise,
        name="embedding",
    )
    images, embedding, logits = pixel_graph(
        features,
        strides,
        output_stride,
        FeatureFusion(fusion_filters, name="fusion"),
        embed,
        num_classes,
        percentiles,
    )
    cropped = CropLike(dtype=precise, name="crop")(logits, images)
    outputs = {"embedding": embedding, "semantic": cropped}
    if mean_shift is not None:
        weights = None if embed_background else 1.0 - ops.softmax(logits)[..., 0]
        loops = mean_shift(embedding, weights, return_sequences=True)
        outputs |= {f"shift_{t + 1}": loops[t] for t in range(mean_shift.iterations)}
    pixel_network = keras.Model(images, [embedding, logits], name="pixel_network")
    return EmbeddingGraph(images, outputs, network, pixel_network, mean_shift, output_stride)
