"""Gaussian blurring mean shift on the sphere, in blocks: exact, differentiable, linear memory.

Kong & Fowlkes (CVPR 2018), section 4 ("Recurrent Mean-Shift Grouping"). With the unit rows of X,

    K = exp(κ (X Xᵀ - 1)),   Y = diag(K 1)⁻¹ K X,   X ← normalize(η Y + (1 - η) X),   κ = 1/δ²,

so every pixel moves to the kernel-weighted mean of all pixels, and K is computed anew in each
loop from the moved pixels. K is never kept: it is formed in parts, and once more in the backward
pass. On a CPU the parts are square tiles: K and the matrix that the backward pass needs are both
symmetric, so a tile serves its rows and its columns, and only half of the tiles are computed. On a
GPU they are blocks of rows, or those of the fused attention of JAX and PyTorch. No op has a shape
that depends on data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from keras import ops

from keras_rpe.arguments import check_choice
from keras_rpe.ops.attention import attention_mean
from keras_rpe.ops.backend import on_gpu, repeat
from keras_rpe.ops.tiles import SegmentGrid, Tensors, symmetric_sums

Tensor = Any

_VANISHED = 1e-20
SHORTEST = 1e-6
"""A mean of unit vectors that is no longer has no direction."""


def mean_shift(
    x: Tensor,
    bandwidth: Tensor | float = 0.2,
    iterations: int = 5,
    step_size: float = 1.0,
    weights: Tensor | None = None,
    return_sequences: bool = False,
    block_size: int | None = None,
    implementation: str | None = None,
) -> Tensor:
    """Move points of the unit sphere to the modes of their density by blurring mean shift.

    The cost is O(iterations · N² · D) time and O(N · D) memory, forward and
    backward. The gradient is exact, for the points and for the bandwidth.

    Args:
        x: Points of unit length, shape `(batch, N, D)`, D static, float32 or float64.
        bandwidth: Kernel width δ in (0, ∞), a number or a scalar tensor: κ = 1/δ². With δ above
            0.3 (κ below 11) large groups swallow small ones within ten loops.
        iterations: Number of loops, at least 1.
        step_size: η in (0, 1], the share of the way to the mean that a point goes in a loop.
        weights: Non-negative weight of each point as a neighbor, shape `(batch, N, 1)`; points
            of weight 0 move but attract none. No gradient flows to it. Default: 1 everywhere.
        return_sequences: Whether to return the points after every loop.
        block_size: Longest side of a tile of the kernel, in points; default: 256, and 128 for
            lists known to be of less than 2048 points. Of "rows", the rows of a block; default:
            2048.
        implementation: How the sums over all pairs are made. "tiles": half of the kernel in small
            tiles, best on a CPU. "rows": blocks of rows of the whole kernel, for GPUs.
            "attention", on JAX and PyTorch: a loop is softmax(κ X Xᵀ + log m) X, by their fused
            attention, on a GPU in float16, which costs three to four digits. Default: "rows" on a
            GPU, else "tiles".

    Raises:
        ValueError: If the implementation is unknown, or not there on this backend.

    Returns:
        The moved points, `(batch, N, D)`; with `return_sequences`, `(iterations, batch, N, D)`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import mean_shift
        >>> x = np.array([[[1.0, 0.0], [0.96, 0.28], [-1.0, 0.0]]])
        >>> np.asarray(mean_shift(x)).round(2).tolist()
        [[[0.99, 0.14], [0.99, 0.14], [-1.0, 0.0]]]
    """
    x = ops.convert_to_tensor(x)
    kappa = 1.0 / ops.square(ops.convert_to_tensor(bandwidth, dtype=x.dtype))
    weights = ops.ones_like(x[..., :1]) if weights is None else ops.cast(weights, x.dtype)
    (batch, n), depth = ops.shape(x)[:2], x.shape[-1]
    implementation = implementation or ("rows" if on_gpu() else "tiles")
    check_choice("implementation", implementation, ("tiles", "rows", "attention"))
    if implementation == "attention":
        grid = SegmentGrid.of_rows(batch, n, 2**30)  # All rows at once.
    else:
        size = SegmentGrid.of if implementation == "tiles" else SegmentGrid.of_rows
        grid = size(batch, n, block_size)
    x, weights = grid.cut(x), ops.stop_gradient(grid.cut(weights))

    def loop(x: Tensor) -> Tensor:
        if implementation == "attention":
            mean = attention_mean(x, weights, kappa)
        else:
            mean = _weighted_mean(x, weights, kappa, grid)
        moved = mean if step_size == 1.0 else step_size * mean + (1.0 - step_size) * x
        # Keeps the static sizes, which a loop body loses.
        return ops.reshape(unit(moved), (*ops.shape(x)[:2], depth))

    if not return_sequences:
        x = repeat(lambda i, x: (loop(x),), (x,), iterations)[0]
        return grid.join(x)[0, :batch, :n]

    # One buffer that each loop writes a slice of: a selection keeps nothing for the backward
    # pass but its mask, and needs no list op, which mobile runtimes lack.
    slots = ops.reshape(ops.arange(iterations), (iterations, 1, 1, 1))

    def collect(i: Tensor, x: Tensor, sequence: Tensor) -> tuple[Tensor, Tensor]:
        x = loop(x)
        return x, ops.where(slots == i, x[None], sequence)

    sequence = ops.zeros((iterations, 1, 1, 1), x.dtype) * ops.stop_gradient(x)[None]
    sequence = repeat(collect, (x, sequence), iterations)[1]
    return grid.join(sequence)[:, :batch, :n]


def unit(x: Tensor) -> Tensor:
    """Vectors of unit length; those without a direction stay as they are."""
    squared = ops.sum(ops.square(x), axis=-1, keepdims=True)
    # A length is selected, never raised to a tiny one: files in float16 round that to 0.
    return x * ops.rsqrt(ops.where(squared > SHORTEST**2, squared, 1.0))


def _weighted_mean(x: Tensor, weights: Tensor, kappa: Tensor, grid: SegmentGrid) -> Tensor:
    """The kernel-weighted mean Y of all points at each point, with its exact gradient.

    With W = exp(κ (x_i·x_j - c)), d = W m, m the weights, G = dY/d and r = (dY·y)/d, the gradient
    is, by rows i,

        dX_i = m_i Σ_j W_ij G_j + κ Σ_j A_ij x_j,   dκ = ½ Σ_ij A_ij x_i·x_j,
        A_ij = W_ij [m_j (G_i·x_j - r_i) + m_i (x_i·G_j - r_j)].

    Each bracket is one product of vectors with extra entries, and so is the exponent, so no pass
    over a tile is spent on adding terms.
    """
    depth = x.shape[-1]

    def factors(
        kappa: Tensor, x: Tensor, weights: Tensor, c: Tensor
    ) -> tuple[Tensors, Tensors, Tensors]:
        # Rows and columns whose products are κ (x_i·x_j - c).
        queries, keys = _joined(kappa * x, -kappa * c), _joined(x, ops.ones_like(c))
        return (queries,), (keys,), (_joined(weights * x, weights),)

    def kernel(rows: Tensors, columns: Tensors) -> Tensors:
        return (ops.exp(ops.matmul(rows[0], columns[0])),)

    def grad_factors(
        kappa: Tensor, x: Tensor, weights: Tensor, c: Tensor, g: Tensor, r: Tensor
    ) -> tuple[Tensors, Tensors, Tensors]:
        (queries,), (keys,), _ = factors(kappa, x, weights, c)
        left = _joined(g, -r, weights * x, weights)
        right = _joined(weights * x, weights, g, -r)
        return (queries, left), (keys, right), (g, x)

    def grad_kernels(rows: Tensors, columns: Tensors) -> Tensors:
        (tile,) = kernel(rows, columns)
        return tile, tile * ops.matmul(rows[1], columns[1])

    @ops.custom_gradient
    def mean(x: Tensor, weights: Tensor, kappa: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        points = x, weights, _longest(x, grid)
        # JAX differentiates no variable that the function finds outside: κ is handed on.
        sums = symmetric_sums(points, partial(factors, kappa), kernel, depth + 1, grid)
        total = sums[..., -1:]
        # A row so far from all others, not of unit length, that its sum vanishes gives zeros.
        total = ops.where(total > _VANISHED, total, 1.0)
        y = sums[..., :-1] / total

        def grad(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            dy = args[0] if upstream is None else upstream
            g = dy / total
            r = ops.sum(g * y, axis=-1, keepdims=True)
            points = x, weights, _longest(x, grid), g, r
            sums = symmetric_sums(
                points, partial(grad_factors, kappa), grad_kernels, 2 * depth, grid
            )
            as_value, as_key = sums[..., :depth], sums[..., depth:]
            dx = weights * as_value + kappa * as_key
            return dx, ops.zeros_like(weights), 0.5 * ops.sum(x * as_key)

        return y, grad

    return mean(x, weights, kappa)


def _longest(x: Tensor, grid: SegmentGrid) -> Tensor:
    """c, that keeps the kernel ≤ 1: 1, or the greatest squared length in the list of a point."""
    # Longer rows, which are a mistake of the caller, must not overflow the exponential; a factor
    # common to the whole kernel cancels in the mean.
    squared = ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1.0)
    lists = ops.reshape(squared, (grid.segments, grid.lists, -1, 1))
    longest = ops.max(lists, axis=(0, 2), keepdims=True)
    return ops.reshape(longest * ops.ones_like(lists), ops.shape(squared))


def _joined(*parts: Tensor) -> Tensor:
    return ops.concatenate(parts, axis=-1)
