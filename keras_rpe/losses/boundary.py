"""The losses of boundary detection."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.losses.cosine_margin import CosineMarginLoss
from keras_rpe.ops.maps import at_least_float32

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class BoundaryCrossEntropy(keras.losses.Loss):
    """Cross-entropy of several boundary maps in which both classes weigh the same.

    In each image, boundary pixels are weighted by the share of the others, and those by the share
    of boundary pixels, as in holistically-nested edge detection (Xie & Tu, ICCV 2015). An image
    without either class has a loss of 0.

    Args:
        consensus: Share of the annotators, in (0, 1], from which on a pixel is a boundary. Pixels
            that fewer marked count neither way; those that nobody marked are not a boundary.
        negative_weight: Factor of the weight of pixels that are not a boundary.
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
        >>> from keras_rpe.losses import BoundaryCrossEntropy
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
        self.consensus = check_number("consensus", consensus, "(0, 1]")
        self.negative_weight = check_number("negative_weight", negative_weight)

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


_NEGATIVE, _VOID, _POSITIVE = 0, 1, 2  # In this order, so that the highest in a cell decides.


@keras.saving.register_keras_serializable(package="keras_rpe")
class BoundaryPairLoss(CosineMarginLoss):
    """The margin loss with two groups: cells with a boundary in them, and the others.

    Boundaries are rare, so as many other cells are put before the draw as there are cells with a
    boundary. Kong & Fowlkes (CVPR 2018), section 4.

    Args:
        stride: Side of a cell, in pixels.
        consensus: As in `BoundaryCrossEntropy`; a cell in which no pixel is a boundary, but one is
            marked by fewer annotators, counts neither way.
        margin: As in `CosineMarginLoss`, and so are the others.
        **kwargs: Of `CosineMarginLoss`.

    Call arguments:
        y_true: Share of the annotators that drew a boundary, `(batch, H, W)` in [0, 1]; -1: void.
        y_pred: Unit embeddings `(batch, h, w, D)`, whose h · stride is at least H, and w · stride
            at least W; cells beyond the map are void.

    Returns of a call:
        As `CosineMarginLoss`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.losses import BoundaryPairLoss
        >>> shares = np.zeros((1, 4, 4), "float32")
        >>> shares[0, 1] = 1.0
        >>> embeddings = np.zeros((1, 2, 2, 3), "float32")
        >>> embeddings[0, 0, :, 0], embeddings[0, 1, :, 0] = 1.0, -1.0
        >>> float(BoundaryPairLoss(stride=2)(shares, embeddings))
        0.0
    """

    def __init__(
        self,
        stride: int,
        consensus: float = 0.3,
        margin: float = 0.1,
        num_samples: int | None = 512,
        name: str = "boundary_pair_loss",
        **kwargs: Any,
    ) -> None:
        kwargs["ignore_label"] = _VOID
        super().__init__(margin=margin, num_samples=num_samples, name=name, **kwargs)
        self.stride = check_integer("stride", stride, 1, 1024)
        self.consensus = check_number("consensus", consensus, "(0, 1]")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each image."""
        shares = ops.cast(y_true, "float32")
        groups = ops.where(
            shares >= self.consensus,
            float(_POSITIVE),
            ops.where(shares == 0.0, float(_NEGATIVE), float(_VOID)),
        )
        size, cells = ops.shape(groups), ops.shape(y_pred)
        bottom, right = (cells[axis] * self.stride - size[axis] for axis in (1, 2))
        groups = ops.pad(groups, [[0, 0], [0, bottom], [0, right]], constant_values=_VOID)
        groups = ops.max_pool(ops.expand_dims(groups, -1), self.stride, self.stride)[..., 0]
        negative = ops.cast(groups == _NEGATIVE, "float32")
        positive = ops.cast(groups == _POSITIVE, "float32")
        share = ops.sum(positive, axis=(1, 2), keepdims=True) / ops.maximum(
            ops.sum(negative, axis=(1, 2), keepdims=True), 1.0
        )
        draw = keras.random.uniform(ops.shape(groups), seed=self.seed_generator)
        groups = ops.where((negative > 0) & (draw > share), float(_VOID), groups)
        return super().call(groups, y_pred)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the loss can be made again."""
        config = {**super().get_config(), "stride": self.stride, "consensus": self.consensus}
        del config["ignore_label"]
        return config
