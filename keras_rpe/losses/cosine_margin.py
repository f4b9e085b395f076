"""The margin loss on pairs of pixels."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rpe.arguments import check_choice, check_integer, check_number
from keras_rpe.ops.maps import at_least_float32, sample_nearest
from keras_rpe.ops.pair_loss import pair_margin_terms

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class CosineMarginLoss(keras.losses.Loss):
    """Pull the pixels of an instance together, push those of different instances apart.

    Over all ordered pairs of a random sample of an image's pixels, with the calibrated cosine
    similarity s in [0, 1]: Σ W_ij (same · (1 - s_ij) + different · max(0, s_ij - α)), where W lets
    every pair of instances weigh the same, however large they are. Kong & Fowlkes (CVPR 2018),
    section 3, equation 2. The background is an instance like the others. An image with one
    instance has only the first term; one without a pair of valid pixels has a loss of 0, and no
    part in the mean of a batch.

    Args:
        margin: α in [0, 1): the similarity below which two instances count as apart. At 0.5,
            different instances need only be orthogonal.
        positive_weight: Factor of the first term.
        negative_weight: Factor of the second term.
        power: 1 for the terms above; 2 for (1 - s²) and max(0, s - α)², whose gradient is that of
            the authors' released code.
        num_samples: Pixels drawn from each image, anew at every call, without replacement.
            `None` takes all pixels: N² pairs.
        ignore_label: Id of void pixels, which are never drawn.
        neighborhood: Distance, in cells of the embedding map, up to which pixels of different
            instances are pairs, in (0, ∞). Instances further apart may share an embedding, so
            that hundreds fit on a small sphere if their places tell them apart; the pairs that
            remain are the hard ones, and both terms are means over their own pairs, so that
            neither vanishes among many instances. `None`: all pairs, as in the paper.
        seed: Seed of the draw, an integer.
        reduction: As in `keras.losses.Loss`.
        name: Name of the loss.
        dtype: As in `keras.losses.Loss`.

    Call arguments:
        y_true: Integer instance maps, `(batch, H, W)` or `(batch, H, W, 1)`, ids below 2²⁴.
        y_pred: Unit embeddings, `(batch, h, w, D)`; where h, w are a whole fraction of H, W, the
            labels are read at the centers of the cells.

    Returns of a call:
        A scalar, or `(batch,)` with `reduction=None`, in
        [0, positive_weight + negative_weight].

    Raises:
        ValueError: If an argument is out of its range, or h, w do not divide H, W.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.losses import CosineMarginLoss
        >>> x = np.array([[[[1, 0, 0], [0.8, 0.6, 0]], [[0, 0.6, 0.8], [0, 0, 1]]]], "float32")
        >>> loss = CosineMarginLoss(margin=0.5, num_samples=None)
        >>> round(float(loss(np.array([[[0, 0], [1, 2]]]), x)), 6)
        0.114444
    """

    def __init__(
        self,
        margin: float = 0.5,
        positive_weight: float = 1.0,
        negative_weight: float = 1.0,
        power: int = 1,
        num_samples: int | None = 1024,
        ignore_label: int | None = None,
        neighborhood: float | None = None,
        seed: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cosine_margin_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = check_number("margin", margin, "[0, 1)")
        self.positive_weight = check_number("positive_weight", positive_weight, "[0, inf)")
        self.negative_weight = check_number("negative_weight", negative_weight, "[0, inf)")
        check_choice("power", power, (1, 2))
        self.power = power
        self.num_samples = num_samples
        if num_samples is not None:
            self.num_samples = check_integer("num_samples", num_samples, 2)
        self.ignore_label = ignore_label
        self.neighborhood = neighborhood
        if neighborhood is not None:
            self.neighborhood = check_number("neighborhood", neighborhood)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each image."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if len(y_true.shape) == 4 and y_true.shape[-1] == 1:
            y_true = ops.squeeze(y_true, -1)
        _check_shapes(y_true.shape, y_pred.shape)
        x = at_least_float32(y_pred)
        batch, height, width = ops.shape(x)[:3]
        labels = sample_nearest(ops.cast(y_true, "int32"), height, width)
        n, depth = height * width, x.shape[-1]
        labels, x = ops.reshape(labels, (batch, n)), ops.reshape(x, (batch, n, depth))
        valid = ops.ones_like(labels, dtype="bool")
        if self.ignore_label is not None:
            valid = labels != self.ignore_label
        index = ops.zeros_like(labels) + ops.arange(n, dtype="int32")
        if self.num_samples is not None:
            index, valid = self._draw(valid)
            labels, x = _gather(labels, index), _gather(x, index)
        positions = ops.cast(ops.stack([index // width, index % width], axis=-1), x.dtype)
        positive, negative = pair_margin_terms(
            labels, x, valid, self.margin, self.power, positions, self.neighborhood
        )
        losses = self.positive_weight * positive + self.negative_weight * negative
        if self.reduction in ("sum_over_batch_size", "mean", "mean_with_sample_weight"):
            # Images without a pair have no say in the mean of a batch.
            there = ops.cast(ops.sum(ops.cast(valid, "int32"), axis=1) > 1, losses.dtype)
            losses *= ops.cast(batch, losses.dtype) / ops.maximum(ops.sum(there), 1.0)
        return losses

    def _draw(self, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Index of `num_samples` pixels of each image, and which of them count.

        The highest of random numbers are a sample without replacement of a fixed size; void pixels
        get the lowest ones, and images of fewer pixels are filled up with pixels that do not count.
        """
        key = keras.random.uniform(ops.shape(valid), seed=self.seed_generator)
        key = ops.where(valid, key, -ops.ones_like(key))
        key = ops.pad(key, [[0, 0], [0, self.num_samples]], constant_values=-1.0)
        key, index = ops.top_k(key, self.num_samples)
        return ops.minimum(index, ops.shape(valid)[1] - 1), key >= 0.0

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the loss can be made again."""
        return {
            **super().get_config(),
            "margin": self.margin,
            "positive_weight": self.positive_weight,
            "negative_weight": self.negative_weight,
            "power": self.power,
            "num_samples": self.num_samples,
            "ignore_label": self.ignore_label,
            "neighborhood": self.neighborhood,
            "seed": self.seed,
        }


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index[b]` of each `x[b]`."""
    batch, n = ops.shape(x)[0], ops.shape(x)[1]
    offset = ops.reshape(ops.arange(batch) * n, (batch, 1))
    flat = ops.reshape(x, (batch * n, *x.shape[2:]))
    return ops.take(flat, index + ops.cast(offset, index.dtype), axis=0)


def _check_shapes(y_true: tuple[int | None, ...], y_pred: tuple[int | None, ...]) -> None:
    fits = len(y_true) == 3 and len(y_pred) == 4
    if fits:
        ratios = [
            (big // small, big % small)
            for big, small in zip(y_true[1:], y_pred[1:3])
            if big is not None and small is not None
        ]
        fits = all(rest == 0 for _, rest in ratios) and len({ratio for ratio, _ in ratios}) <= 1
    if not fits:
        raise ValueError(
            "`y_true` must be instance maps (batch, H, W) and `y_pred` embeddings (batch, h, w, D) "
            "with h and w the same whole fraction of H and W. "
            f"Received: y_true.shape={tuple(y_true)}, y_pred.shape={tuple(y_pred)}"
        )
