"""Similarities, weights and the margin loss of pairs of pixels: the pure functions of the loss."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

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
    same, each, _ = _instances(labels, valid)
    # Each instance's pixels add up to 1, so the sum counts the instances.
    each = each / ops.maximum(ops.sum(each, axis=-1, keepdims=True), 1.0)
    return same, ops.expand_dims(each, -1) * ops.expand_dims(each, -2)


def _instances(labels: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Whether two pixels are of one instance, 1 / n_i or 0 where a pixel is not valid, and n_i."""
    same = ops.expand_dims(labels, -1) == ops.expand_dims(labels, -2)
    valid = ops.cast(ops.ones_like(labels) if valid is None else valid, "float32")
    size = ops.matmul(ops.cast(same, "float32"), ops.expand_dims(valid, -1))[..., 0]
    size = ops.maximum(size, 1.0)
    return same, valid / size, size


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
    same, each, size = _instances(labels, valid)
    each, size = ops.cast(each, x.dtype), ops.cast(size, x.dtype)
    instances = ops.maximum(ops.sum(each, axis=-1), 1.0)  # Q
    s = calibrated_cosine_similarity(x)
    together, apart = 1.0 - s, ops.maximum(s - margin, 0.0)
    if power == 2:
        together, apart = 1.0 - ops.square(s), ops.square(apart)
    if neighborhood is None:
        positive = _pairs(each, same, each, together) / ops.square(instances)
        return positive, _pairs(each, ~same, each, apart) / ops.square(instances)
    # A row of W of n_i - 1 others, of which each instance of more than one pixel has the same.
    n = x.shape[1] or ops.shape(x)[1]
    several = ops.cast(size > 1.0, x.dtype)
    others = several * each / ops.maximum(size - 1.0, 1.0)
    attracting = ops.logical_and(same, ops.logical_not(ops.eye(n, dtype="bool")))
    repelling = ops.logical_and(~same, _near(positions, neighborhood))
    positive = _pairs(others, attracting, each * size, together)
    positive = positive / ops.maximum(ops.sum(several * each, axis=-1), 1.0)
    weight = _pairs(each, repelling, each, ops.ones_like(s))
    return positive, _pairs(each, repelling, each, apart) / ops.maximum(weight, _FEW * instances)


def _pairs(row: Tensor, which: Tensor, column: Tensor, value: Tensor) -> Tensor:
    """Σ row_i column_j value_ij over some pairs, `(batch,)`."""
    terms = ops.where(which, value * ops.expand_dims(column, -2), ops.zeros_like(value))
    return ops.sum(row * ops.sum(terms, axis=-1), axis=-1)


def _near(positions: Tensor, distance: float) -> Tensor:
    """Whether two pixels are at most that far apart, `(batch, N, N)`."""
    row, column = positions[..., 0], positions[..., 1]
    down = ops.expand_dims(row, -1) - ops.expand_dims(row, -2)
    right = ops.expand_dims(column, -1) - ops.expand_dims(column, -2)
    return ops.square(down) + ops.square(right) <= distance**2
