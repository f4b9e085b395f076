"""The loss of boundary maps."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rpe.ops import at_least_float32

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class BoundaryCrossEntropy(keras.losses.Loss):
    """Cross-entropy of several boundary maps in which both classes weigh the same.

    In each image, boundary pixels are weighted by the share of the others, and those by the share
    of boundary pixels, as in holistically-nested edge detection (Xie & Tu, ICCV 2015). An image
    without either class has a loss of 0.

    Args:
        consensus: Share of the annotators, in (0, 1], from which on a pixel is a boundary. Pixels
            that fewer marked count neither way; those that nobody marked are no boundary.
        negative_weight: Factor of the weight of pixels that are no boundary.
        reduction: As in `keras.losses.Loss`.
        name: Name of the loss.
        dtype: As in `keras.losses.Loss`.

    Call arguments:
        y_true: Share of the annotators that drew a boundary, `(batch, H, W)` in [0, 1]; -1: void.
        y_pred: Logits of M maps, `(batch, H, W, M)`.

    Returns of a call:
        The sum over the maps, a scalar, or `(batch,)` with `reduction=None`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.boundary_cross_entropy import BoundaryCrossEntropy
        >>> shares = np.array([[[1.0, 0.0, 0.1, -1.0]]], "float32")
        >>> logits = np.zeros((1, 1, 4, 2), "float32")
        >>> round(float(BoundaryCrossEntropy()(shares, logits)), 4)
        1.3863
    """

    def __init__(
        self,
        consensus: float = 0.3,
        negative_weight: float = 1.1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "boundary_cross_entropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_consensus(consensus)
        if not 0.0 < negative_weight < float("inf"):
            raise ValueError(
                "`negative_weight` must be positive and finite. "
                f"Received: negative_weight={negative_weight}"
            )
        self.consensus = consensus
        self.negative_weight = negative_weight

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each image."""
        logits = at_least_float32(ops.convert_to_tensor(y_pred))
        shares = ops.cast(y_true, logits.dtype)
        positive = ops.cast(shares >= self.consensus, logits.dtype)
        negative = ops.cast(shares == 0.0, logits.dtype)
        positives = ops.sum(positive, axis=(1, 2), keepdims=True)
        negatives = ops.sum(negative, axis=(1, 2), keepdims=True)
        weights = positive * negatives + self.negative_weight * negative * positives
        # Per image they add up to 1, or to 0 where a class is missing.
        weights /= ops.maximum((1.0 + self.negative_weight) * positives * negatives, 1.0)
        losses = ops.softplus(logits) - logits * ops.expand_dims(positive, -1)
        return ops.sum(losses * ops.expand_dims(weights, -1), axis=(1, 2, 3))

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the loss can be made again."""
        return {
            **super().get_config(),
            "consensus": self.consensus,
            "negative_weight": self.negative_weight,
        }


def check_consensus(consensus: float) -> None:
    """Check a share of annotators.

    Raises:
        ValueError: If it is not in (0, 1].
    """
    if not 0.0 < consensus <= 1.0:
        raise ValueError(f"`consensus` must be in (0, 1]. Received: consensus={consensus}")
