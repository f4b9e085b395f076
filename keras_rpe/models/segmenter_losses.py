"""What the outputs of the tasks that embed pixels are trained towards."""

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
            `instances` and `classes`; with one class, the latter do not matter.
        y_pred: Outputs of the model, for the size of the embedding map.
        outputs: Names of the outputs.
        stride: Stride of the embedding map.
        num_classes: Classes other than the background.
        ignore_label: Id of void pixels in instance maps, and in class maps if it is no class.
        embed_background: Whether the background is an instance for the embeddings, or void.

    Returns:
        A map for each output: for `semantic` the classes `(batch, H, W)`, for the embeddings the
        instances, made as large as the embedding map times its stride by void pixels.

    Raises:
        ValueError: If there are several classes but no class map.
    """
    needed = {"instances"} if num_classes == 1 else {"instances", "classes"}
    if isinstance(y, dict) and needed <= set(y):
        instances, classes = _flat(y["instances"]), y.get("classes")
    elif isinstance(y, dict) or num_classes > 1:
        received = f"a dictionary of {sorted(y)}" if isinstance(y, dict) else type(y).__name__
        raise ValueError(
            f"With num_classes={num_classes}, the labels must be a dictionary of 'instances' and "
            f"'classes'. Received: {received}"
        )
    else:
        instances = _flat(y)
    # Whatever classes the data have, with one class they are one.
    classes = ops.cast(instances > 0, "int32") if num_classes == 1 else _flat(classes)
    if ignore_label is not None:
        void = instances == ignore_label
        instances = ops.where(void, VOID, instances)
        classes = ops.where(void, VOID, _without_void(classes, num_classes, ignore_label))
    if not embed_background:
        instances = ops.where(instances == 0, VOID, instances)
    padded = _padded(instances, y_pred["embedding"], stride)
    return {name: classes if name == "semantic" else padded for name in outputs}


def class_targets(
    y: Any,
    y_pred: dict[str, Tensor],
    outputs: Iterable[str],
    stride: int,
    num_classes: int,
    ignore_label: int | None,
) -> dict[str, Tensor]:
    """What each output is compared with where the groups of the embedding are the classes.

    Args:
        y: Integer class maps `(batch, H, W)` or `(batch, H, W, 1)`, or a dictionary with them as
            `classes`.
        y_pred: Outputs of the model, for the size of the embedding map.
        outputs: Names of the outputs.
        stride: Stride of the embedding map.
        num_classes: Classes other than the background.
        ignore_label: Id of void pixels, which is no class.

    Returns:
        As `targets`.

    Raises:
        ValueError: If there is no class map.
    """
    if isinstance(y, dict):
        if "classes" not in y:
            raise ValueError(
                "The labels must be class maps, or a dictionary with them as 'classes'. "
                f"Received: a dictionary of {sorted(y)}"
            )
        y = y["classes"]
    classes = _without_void(_flat(y), num_classes, ignore_label)
    padded = _padded(classes, y_pred["embedding"], stride)
    return {name: classes if name == "semantic" else padded for name in outputs}


def _without_void(classes: Tensor, num_classes: int, ignore_label: int | None) -> Tensor:
    if ignore_label is None or 0 <= ignore_label <= num_classes:
        return classes
    return ops.where(classes == ignore_label, VOID, classes)


def _padded(labels: Tensor, embedding: Tensor, stride: int) -> Tensor:
    """Labels as large as the embedding map times its stride, by void pixels."""
    size, cells = ops.shape(labels), ops.shape(embedding)
    bottom, right = cells[1] * stride - size[1], cells[2] * stride - size[2]
    return ops.pad(labels, [[0, 0], [0, bottom], [0, right]], constant_values=VOID)


def _flat(labels: Any) -> Tensor:
    labels = ops.cast(labels, "int32")
    return ops.squeeze(labels, -1) if len(labels.shape) == 4 else labels
