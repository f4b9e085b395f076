"""The loss of estimated diameters."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rpe.arguments import check_number

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class ObjectSizeLoss(keras.losses.Loss):
    """Compare estimated diameters of objects with the true ones, where objects are.

    The smooth L1 loss (Girshick, "Fast R-CNN", ICCV 2015, equation 3) of the binary logarithms, a
    mean over the cells with an object, plus the cross-entropy of the certainty, a mean over all
    cells that are not void.

    Args:
        size_weight: Factor of the first.
        name: Name of the loss.
        reduction: As in `keras.losses.Loss`.
        dtype: As in `keras.losses.Loss`.

    Call arguments:
        y_true: Binary logarithm of the diameter of the object at each cell, `(batch, h, w)`; 0
            where there is none, and below 0 where that is not known.
        y_pred: What `ObjectSize` gives, `(batch, h, w, 2)`.

    Returns of a call:
        A scalar, or `(batch,)` with `reduction=None`.

    Raises:
        ValueError: If `size_weight` is negative or not finite.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.losses import ObjectSizeLoss
        >>> truth = np.array([[[4.0, 0.0]]])
        >>> guess = np.array([[[[3.0, 30.0], [5.0, -30.0]]]], "float32")
        >>> float(ObjectSizeLoss()(truth, guess))
        0.5
    """

    def __init__(
        self,
        size_weight: float = 1.0,
        name: str = "object_size_loss",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.size_weight = check_number("size_weight", size_weight, "[0, inf)")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each image."""
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        there, known = (ops.cast(one, "float32") for one in (y_true > 0, y_true >= 0))
        off = ops.abs(y_pred[..., 0] - y_true)
        smooth = ops.where(off < 1.0, 0.5 * ops.square(off), off - 0.5)
        logit = y_pred[..., 1]
        uncertain = ops.softplus(logit) - logit * there
        return self.size_weight * _mean(smooth, there) + _mean(uncertain, known)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the loss can be made again."""
        return {**super().get_config(), "size_weight": self.size_weight}


def _mean(x: Tensor, weights: Tensor) -> Tensor:
    total = ops.sum(weights, axis=(1, 2))
    return ops.sum(x * weights, axis=(1, 2)) / ops.maximum(total, 1.0)
