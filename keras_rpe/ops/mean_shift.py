"""Gaussian blurring mean shift on the sphere, in blocks: exact, differentiable, linear memory.

Kong & Fowlkes (CVPR 2018), section 4 ("Recurrent Mean-Shift Grouping"). With the unit rows of X,

    K = exp(κ (X Xᵀ - 1)),   Y = diag(K 1)⁻¹ K X,   X ← normalise(η Y + (1 - η) X),   κ = 1/δ²,

so every pixel moves to the kernel-weighted mean of all pixels, and K is computed anew in each
loop from the moved pixels. K is never kept: it is formed in square tiles, and once more in the
backward pass. K and the matrix that the backward pass needs are both symmetric, so a tile serves
its rows and its columns, and only half of the tiles are computed. The tiles of one offset from the
diagonal are one batched product, hence the peak is O(N · block_size), and no op has a shape that
depends on data. Blocks come first in the layout of all tensors, then lists, then rows (points,
entries) or columns (entries, points).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_rpe.ops.loops import repeat, run_while
from keras_rpe.ops.padding import missing_to_multiple

Tensor = Any

# The smallest kernel sum that is divided by: a row so far from all others (not of unit length)
# that its sum vanishes gives zeros, never NaN.
_TINY = 1e-20
# Added to no length, only a floor: a mean of unit vectors this short has no direction.
_SHORTEST = 1e-6


def mean_shift(
    x: Tensor,
    bandwidth: Tensor | float = 0.2,
    iterations: int = 5,
    step_size: float = 1.0,
    weights: Tensor | None = None,
    return_sequences: bool = False,
    block_size: int | None = None,
) -> Tensor:
    """Move points of the unit sphere to the modes of their density by blurring mean shift.

    The cost is O(iterations · N² · D) time and O(N · (D + block_size)) memory, forward and
    backward. The gradient is exact, for the points and for the bandwidth.

    Args:
        x: Points of unit length, shape `(batch, N, D)`, D static, float32 or float64.
        bandwidth: Kernel width δ in (0, ∞), a number or a scalar tensor: κ = 1/δ². With δ above
            0.3 (κ below 11) large groups swallow small ones within ten loops.
        iterations: Number of loops, at least 1.
        step_size: η in (0, 1], the share of the way to the mean that a point goes in a loop.
        weights: Non-negative weight of each point as a neighbour, shape `(batch, N, 1)`; points
            of weight 0 move but attract none. No gradient flows to it. Default: 1 everywhere.
        return_sequences: Whether to return the points after every loop.
        block_size: Longest side of a tile of the kernel, in points; default: an eighth of N, in
            [128, 512], where N is known when the graph is built, otherwise 256.

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
    n, depth = ops.shape(x)[1], x.shape[-1]
    if block_size is None:
        block_size = min(max(n // 8, 128), 512) if isinstance(n, int) else 256
    # An odd number of blocks, each a little smaller than asked for rather than much padding.
    blocks = (n + block_size - 1) // block_size
    blocks = blocks + 1 - blocks % 2
    padding = [[0, 0], [0, missing_to_multiple(n, blocks)], [0, 0]]
    x, weights = ops.pad(x, padding), ops.stop_gradient(ops.pad(weights, padding))

    def loop(x: Tensor) -> Tensor:
        mean = _weighted_mean(x, weights, kappa, blocks)
        moved = mean if step_size == 1.0 else step_size * mean + (1.0 - step_size) * x
        # Keeps the static sizes, which a loop body loses.
        return ops.reshape(_unit(moved), (*ops.shape(x)[:2], depth))

    if not return_sequences:
        return repeat(lambda i, x: (loop(x),), (x,), iterations)[0][:, :n]

    # One buffer that each loop writes a slice of: a selection keeps nothing for the backward
    # pass but its mask, and needs no list op, which mobile runtimes lack.
    slots = ops.reshape(ops.arange(iterations), (iterations, 1, 1, 1))

    def collect(i: Tensor, x: Tensor, sequence: Tensor) -> tuple[Tensor, Tensor]:
        x = loop(x)
        return x, ops.where(slots == i, x[None], sequence)

    sequence = ops.zeros((iterations, 1, 1, 1), x.dtype) * ops.stop_gradient(x)[None]
    return repeat(collect, (x, sequence), iterations)[1][:, :, :n]


def _unit(x: Tensor) -> Tensor:
    squared = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squared, _SHORTEST**2))


def _weighted_mean(x: Tensor, weights: Tensor, kappa: Tensor, blocks: Tensor | int) -> Tensor:
    """The kernel-weighted mean Y of all points at each point, with its exact gradient.

    With W = exp(κ (x_i·x_j - c)), d = W m, m the weights, G = dY/d and r = (dY·y)/d, the gradient
    is, by rows i,

        dX_i = m_i Σ_j W_ij G_j + κ Σ_j A_ij x_j,   dκ = ½ Σ_ij A_ij x_i·x_j,
        A_ij = W_ij [m_j (G_i·x_j - r_i) + m_i (x_i·G_j - r_j)].

    Each bracket is one product of vectors with extra entries, and so is the exponent, so no pass
    over a tile is spent on adding terms.
    """

    @ops.custom_gradient
    def mean(x: Tensor, weights: Tensor, kappa: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        queries, keys = _exponents(x, kappa, blocks)
        values = _columns(ops.concatenate([x * weights, weights], axis=-1), blocks)

        def products(keys: Tensor) -> tuple[Tensor, ...]:
            return (ops.exp(ops.matmul(queries, keys)),)

        (sums,) = _symmetric_sweep(products, (keys,), (values,))
        sums = _points(sums, x)
        total = ops.maximum(sums[..., -1:], _TINY)
        y = sums[..., :-1] / total

        def grad(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            dy = args[0] if upstream is None else upstream
            g = dy / total
            r = ops.sum(g * y, axis=-1, keepdims=True)
            left = _rows(ops.concatenate([g, -r, weights * x, weights], axis=-1), blocks)
            right = _columns(ops.concatenate([weights * x, weights, g, -r], axis=-1), blocks)
            queries, keys = _exponents(x, kappa, blocks)
            values = _columns(g, blocks), _columns(x, blocks)

            def products(keys: Tensor, right: Tensor) -> tuple[Tensor, ...]:
                kernel = ops.exp(ops.matmul(queries, keys))
                return kernel, kernel * ops.matmul(left, right)

            as_value, as_key = _symmetric_sweep(products, (keys, right), values)
            as_value, as_key = _points(as_value, x), _points(as_key, x)
            dx = weights * as_value + kappa * as_key
            return dx, ops.zeros_like(weights), 0.5 * ops.sum(x * as_key)

        return y, grad

    return mean(x, weights, kappa)


def _exponents(x: Tensor, kappa: Tensor, blocks: Tensor | int) -> tuple[Tensor, Tensor]:
    """Rows and columns with products κ (x_i·x_j - c): c = 1 keeps the kernel of unit rows ≤ 1."""
    # Longer rows, which are a mistake of the caller, must not overflow the exponential; a factor
    # common to the whole kernel cancels in the mean.
    longest = ops.max(ops.sum(ops.square(x), axis=-1, keepdims=True), axis=1, keepdims=True)
    one = ops.ones_like(x[..., :1])
    shift = -kappa * ops.maximum(longest, 1.0) * one
    queries = _rows(ops.concatenate([kappa * x, shift], axis=-1), blocks)
    return queries, _columns(ops.concatenate([x, one], axis=-1), blocks)


def _symmetric_sweep(
    products: Callable[..., tuple[Tensor, ...]],
    factors: tuple[Tensor, ...],
    values: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """Sum S V over all tiles of symmetric matrices S, forming each pair of mirrored tiles once.

    The blocks lie on a ring of odd length, so the offsets to half the ring meet every pair of
    blocks once. `products` takes, for each block, the factors (columns) of the block some offset
    ahead, and gives the tiles of one S for each V between the two. V are columns, the sums rows.
    """
    blocks = ops.shape(values[0])[0]
    ring = ops.arange(blocks)
    # The ring twice over, of which a slice along the first axis is no copy.
    twice = [ops.concatenate([columns, columns], axis=0) for columns in (*factors, *values)]

    def body(offset: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
        back = (ring + (blocks - offset)) % blocks
        ahead = [
            ops.slice(columns, (offset, 0, 0, 0), ops.shape(like))
            for columns, like in zip(twice, (*factors, *values))
        ]
        tiles = products(*ahead[: len(factors)])
        direct = [_by_rows(tile, v) for tile, v in zip(tiles, ahead[len(factors) :])]
        mirrored = [ops.take(ops.matmul(v, tile), back, axis=0) for tile, v in zip(tiles, values)]
        # Two sums, each of one term a step: three terms in one sum are rewritten by TensorFlow's
        # optimizer into a temporary variable, which fails in nested loops.
        return (offset + 1, *(total + new for total, new in zip(sums, direct + mirrored)))

    # The diagonal is its own mirror.
    diagonal = [_by_rows(tile, v) for tile, v in zip(products(*factors), values)]
    start = (ops.ones((), "int32"), *diagonal, *(ops.zeros_like(v) for v in values))
    sums = run_while(lambda offset, *_: 2 * offset < blocks, body, start)[1:]
    return tuple(a + _transposed(b) for a, b in zip(sums, sums[len(values) :]))


def _by_rows(tiles: Tensor, columns: Tensor) -> Tensor:
    return ops.einsum("abij,abdj->abid", tiles, columns)


def _transposed(tiles: Tensor) -> Tensor:
    return ops.transpose(tiles, (0, 1, 3, 2))


def _columns(x: Tensor, blocks: Tensor | int) -> Tensor:
    return _transposed(_rows(x, blocks))


def _rows(x: Tensor, blocks: Tensor | int) -> Tensor:
    shape = ops.shape(x)
    x = ops.reshape(x, (shape[0], blocks, shape[1] // blocks, x.shape[-1]))
    return ops.transpose(x, (1, 0, 2, 3))


def _points(rows: Tensor, like: Tensor) -> Tensor:
    shape = ops.shape(like)
    return ops.reshape(ops.transpose(rows, (1, 0, 2, 3)), (shape[0], shape[1], rows.shape[-1]))
