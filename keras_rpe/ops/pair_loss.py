"""Similarities, weights and the margin loss of pairs of pixels: the pure functions of the loss."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

_NO_WEIGHT = 1e-12  # Below the weight of any pair of 10⁵ pixels and more.
_FEW = 0.25  # Of an instance near each other, which is k/Q of all pairs for k of them.


def calibrated_cosine_similarity(x: Tensor) -> Tensor:
    """Similarity s = (1 + x_i·x_j)/2 of all pairs of unit vectors.

    Kong & Fowlkes (CVPR 2018), section 3, equation 1.

    Args:
        x: Unit vectors, shape `(..., N, D)`.

    Returns:
        Shape `(..., N, N)`, in [0, 1]: 1 for the same direction, 0.5 for orthogonal ones, 0 for
        opposite ones.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import calibrated_cosine_similarity
        >>> x = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
        >>> np.asarray(calibrated_cosine_similarity(x))
        array([[1. , 0.5],
               [0.5, 1. ]], dtype=float32)
    """
    return 0.5 + 0.5 * ops.matmul(x, ops.swapaxes(x, -1, -2))


def pair_weights(labels: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weights that let every ordered pair of instances count the same.

    W_ij = 1 / (Q² n_i n_j), with n_i the number of pixels of i's instance and Q the number of
    instances, so the weights sum to 1 and a small instance weighs as much as a large one.
    Kong & Fowlkes (CVPR 2018), section 3, equation 2.

    Args:
        labels: Integer instance ids, shape `(..., N)`. The background is an instance like others.
        valid: Which pixels take part, boolean, shape `(..., N)`. Default: all.

    Returns:
        `same`, boolean `(..., N, N)`, whether two pixels belong to one instance, and the weights,
        float32 `(..., N, N)`, 0 where a pixel is not valid; all 0 when none is.
    """
    same = ops.expand_dims(labels, -1) == ops.expand_dims(labels, -2)
    valid = ops.ones_like(labels) if valid is None else valid
    valid = ops.cast(valid, "float32")
    size = ops.matmul(ops.cast(same, "float32"), ops.expand_dims(valid, -1))[..., 0]
    weight = valid / ops.maximum(size, 1.0)
    # Each instance's pixels add up to 1, so the sum counts the instances.
    weight = weight / ops.maximum(ops.sum(weight, axis=-1, keepdims=True), 1.0)
    return same, ops.expand_dims(weight, -1) * ops.expand_dims(weight, -2)


def pair_margin_terms(
    labels: Tensor,
    x: Tensor,
    valid: Tensor | None = None,
    margin: float = 0.5,
    power: int = 1,
    positions: Tensor | None = None,
    neighborhood: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The two terms of the margin loss over all ordered pairs of pixels.

    Positive: Σ W same (1 - s); negative: Σ W (1 - same) max(0, s - α). With `power=2`, (1 - s²)
    and max(0, s - α)². Kong & Fowlkes (CVPR 2018), section 3, equation 2.

    With a neighborhood, pixels of different instances are pairs only within that distance, and the
    weights of either term add up to 1: otherwise the pairs within one of Q instances have 1/Q of
    the weight, and those of two that touch 2/Q². Where hardly any are near, on average less than
    a quarter of an instance beside each, the negative weights add up to less. A pixel is then no
    pair with itself, which would make the attraction of few pixels weak.

    Args:
        labels: Integer instance ids, shape `(batch, N)`.
        x: Unit embeddings, shape `(batch, N, D)`.
        valid: Which pixels take part, boolean, shape `(batch, N)`. Default: all.
        margin: α in [0, 1), the similarity below which two instances are apart.
        power: 1 or 2.
        positions: Row and column of each pixel, float, shape `(batch, N, 2)`; needed for a
            neighborhood.
        neighborhood: Largest distance of pixels of different instances that are a pair, in the
            units of `positions`; `None`: any.

    Returns:
        Positive and negative term, each of shape `(batch,)`, in [0, 1].

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import pair_margin_terms
        >>> x = np.array([[[1, 0, 0], [0.8, 0.6, 0], [0, 0.6, 0.8], [0, 0, 1]]], "float32")
        >>> positive, negative = pair_margin_terms(np.array([[0, 0, 1, 2]]), x)
        >>> print(f"{float(positive[0]):.6f} {float(negative[0]):.6f}")
        0.005556 0.108889
    """
    same, weights = pair_weights(labels, valid)
    weights = ops.cast(weights, x.dtype)
    s = calibrated_cosine_similarity(x)
    zero = ops.zeros_like(s)
    apart = ops.maximum(s - margin, 0.0)
    if power == 2:
        s, apart = ops.square(s), ops.square(apart)
    attracting = ops.where(same, weights, zero)
    repelling = ops.where(same, zero, weights)
    if neighborhood is not None:
        # Row sums of W are 1 / (Q n_i): every instance of more than one pixel counts the same.
        size = ops.sum(ops.cast(weights > 0, x.dtype) * ops.cast(same, x.dtype), axis=-1)
        other = 1.0 - ops.eye(x.shape[1] or ops.shape(x)[1], dtype=x.dtype)
        attracting = attracting * other * ops.expand_dims(size / ops.maximum(size - 1.0, 1.0), -1)
        repelling = repelling * ops.cast(_near(positions, neighborhood), x.dtype)
        instances = 1.0 / ops.maximum(
            ops.max(ops.sum(weights, axis=-1) * size, axis=-1), _NO_WEIGHT
        )
        few = _FEW / ops.reshape(instances, (-1, 1, 1))
        attracting = _of_sum_one(attracting, _NO_WEIGHT)
        repelling = _of_sum_one(repelling, few)
    positive = ops.sum(attracting * (1.0 - s), axis=(-2, -1))
    negative = ops.sum(repelling * apart, axis=(-2, -1))
    return positive, negative


def _near(positions: Tensor, distance: float) -> Tensor:
    """Whether two pixels are at most that far apart, `(batch, N, N)`."""
    row, column = positions[..., 0], positions[..., 1]
    down = ops.expand_dims(row, -1) - ops.expand_dims(row, -2)
    right = ops.expand_dims(column, -1) - ops.expand_dims(column, -2)
    return ops.square(down) + ops.square(right) <= distance**2


def _of_sum_one(weights: Tensor, least: Tensor | float) -> Tensor:
    """Weights that sum to 1, or to less where they are fewer than `least`."""
    return weights / ops.maximum(ops.sum(weights, axis=(-2, -1), keepdims=True), least)
