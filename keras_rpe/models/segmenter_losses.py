"""What the outputs of the instance segmenter are trained towards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from keras_rpe.losses import CosineMarginLoss

Tensor = Any

# Pairs are the square of it, and half as many pixels as the loss takes by default learn as well.
_SAMPLES = 512
VOID = -1  # Id of pixels that no loss counts, whatever id the user's maps have for them.


def default_losses(
    outputs: Iterable[str], margin: float, neighborhood: float | None
) -> dict[str, keras.losses.Loss]:
    """The losses of `compile(loss="auto")`.

    Args:
        outputs: Names of the outputs of the model.
        margin: Margin of the pair loss.
        neighborhood: Distance up to which it pushes instances apart.

    Returns:
        Cross-entropy for `semantic` and a margin loss, with a sample of its own, for the others.
    """
    return {
        name: keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID)
        if name == "semantic"
        else CosineMarginLoss(
            margin=margin, num_samples=_SAMPLES, ignore_label=VOID, neighborhood=neighborhood
        )
        for name in outputs
    }


def targets(
    y: Any,
    y_pred: dict[str, Tensor],
    outputs: Iterable[str],
    stride: int,
    num_classes: int,
    ignore_label: int | None,
    embed_background: bool,
) -> dict[str, Tensor]:
    """What each output is compared with.

    Args:
        y: Integer instance maps `(batch, H, W)` or `(batch, H, W, 1)`, or a dictionary of
            `instances` and `classes`.
        y_pred: Outputs of the model, for the size of the embedding map.
        outputs: Names of the outputs.
        stride: Stride of the embedding map.
        num_classes: Classes other than the background.
        ignore_label: Id of void pixels.
        embed_background: Whether the background is an instance for the embeddings, or void.

    Returns:
        A map for each output: for `semantic` the classes `(batch, H, W)`, for the embeddings the
        instances, made as large as the embedding map times its stride by void pixels.

    Raises:
        ValueError: If there are several classes but no class map.
    """
    if isinstance(y, dict):
        instances, classes = _flat(y["instances"]), _flat(y["classes"])
    elif num_classes > 1:
        raise ValueError(
            f"With num_classes={num_classes}, the labels must be a dictionary of 'instances' and "
            f"'classes'. Received: {type(y).__name__}"
        )
    else:
        instances = _flat(y)
        classes = ops.cast(instances > 0, "int32")
    if ignore_label is not None:
        void = instances == ignore_label
        instances = ops.where(void, VOID, instances)
        classes = ops.where(void, VOID, classes)
    if not embed_background:
        instances = ops.where(instances == 0, VOID, instances)
    size, embedding = ops.shape(instances), ops.shape(y_pred["embedding"])
    bottom, right = embedding[1] * stride - size[1], embedding[2] * stride - size[2]
    padded = ops.pad(instances, [[0, 0], [0, bottom], [0, right]], constant_values=VOID)
    return {name: classes if name == "semantic" else padded for name in outputs}


def _flat(labels: Any) -> Tensor:
    labels = ops.cast(labels, "int32")
    return ops.squeeze(labels, -1) if len(labels.shape) == 4 else labels
