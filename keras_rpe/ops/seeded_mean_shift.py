"""Mean shift of a few seeds with the data held fixed: time linear in the number of points.

The blurring mean shift of `mean_shift` compares all points with all points. Where only the groups
are wanted, a few seeds suffice: they are drawn until every point is close to one, each climbs the
density of the points, which stay where they are, seeds that meet become one mode, and each point
takes its nearest mode. The seeds come in blocks, and only the blocks that are used cost time; no
op has a shape that depends on data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_rpe.ops.loops import run_while

Tensor = Any

SEED_BLOCK = 32
"""Seeds that are drawn, moved and compared with all points together."""

_FAR = -2.0  # Below any cosine.
_TINY = 1e-20
_SHORTEST = 1e-6


def seeded_mean_shift(
    x: Tensor,
    bandwidth: Tensor | float = 0.2,
    max_seeds: int = 256,
    max_iterations: int = 10,
    weights: Tensor | None = None,
    seed_weight: float = 0.5,
    seed_similarity: float = 0.9,
    mode_similarity: float = 0.96,
    tolerance: float = 1e-3,
) -> Tensor:
    """Send each point of the unit sphere to its mode, found by mean shift from a few seeds.

    As many seeds are drawn as it takes until each point is close to one, so small groups are not
    lost, up to `max_seeds`. The cost is O(loops · N · seeds · D) time and O(N · D) memory. No
    gradient flows.

    Args:
        x: Points of unit length, shape `(batch, N, D)`, D static, float32 or float64.
        bandwidth: Kernel width δ in (0, ∞), a number or a scalar tensor: κ = 1/δ².
        max_seeds: Seeds at most, for each list of points. If they run out, the points that are
            close to none go to the nearest mode nevertheless.
        max_iterations: Loops at most; they end as soon as no seed moves.
        weights: Weight of each point as a neighbour, in [0, 1], shape `(batch, N, 1)`. Default: 1.
        seed_weight: Least weight of a point that needs a seed close to it.
        seed_similarity: Calibrated cosine similarity (1 + cos)/2 to a seed, in [0, 1], at which a
            point needs none of its own.
        mode_similarity: Similarity at which two modes are one.
        tolerance: Squared distance below which a loop has moved nothing.

    Returns:
        `(batch, N, D)`: the mode of each point, the same vector for all points of a group; in
        lists where no point needs a seed, the points themselves.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import seeded_mean_shift
        >>> x = np.array([[[1.0, 0.0], [0.96, 0.28], [-1.0, 0.0]]])
        >>> modes = np.asarray(seeded_mean_shift(x))[0]
        >>> bool(np.all(modes[0] == modes[1])), modes[2].round(4).tolist()
        (True, [-1.0, 0.0])
    """
    x = ops.stop_gradient(ops.convert_to_tensor(x))
    weights = ops.ones_like(x[..., :1]) if weights is None else ops.cast(weights, x.dtype)
    weights = ops.stop_gradient(weights)
    kappa = ops.stop_gradient(1.0 / ops.square(ops.convert_to_tensor(bandwidth, dtype=x.dtype)))
    cosine = 2.0 * seed_similarity - 1.0
    eligible = weights[..., 0] >= seed_weight

    def climb(seeds: Tensor) -> Tensor:
        return _climb(seeds, x, weights, kappa, max_iterations, tolerance)

    modes, count = _find_modes(x, eligible, climb, max_seeds, cosine)
    modes, count = _distinct(modes, count, 2.0 * mode_similarity - 1.0)
    return _nearest(x, modes, count)


def _find_modes(
    x: Tensor, eligible: Tensor, climb: Callable[[Tensor], Tensor], max_seeds: int, cosine: float
) -> tuple[Tensor, Tensor]:
    """Draw seeds among the eligible points and let them climb, until none of these is left over.

    A point is left over while no seed and no mode lies within `cosine` of it.

    Returns the modes `(batch, slots, D)`, zero beyond their number, and that number `(batch,)`;
    several may be the same.
    """
    batch, n, depth = ops.shape(x)[0], ops.shape(x)[1], x.shape[-1]
    slots = -(-max_seeds // SEED_BLOCK) * SEED_BLOCK
    # A fixed order that follows no pattern of the data, so that each draw is a fair sample of
    # the points left over; the product is below 2³¹.
    order = ops.cast(ops.arange(n, dtype="int32") % 46337 * 46327 % 65521 + 1, x.dtype)
    earlier = ops.cast(ops.arange(SEED_BLOCK)[None, :] < ops.arange(SEED_BLOCK)[:, None], x.dtype)
    offset = ops.reshape(ops.arange(batch, dtype="int32") * n, (batch, 1))
    flat = ops.reshape(x, (batch * n, depth))

    def left_over(count: Tensor, closest: Tensor) -> Tensor:
        far = ops.logical_and(eligible, closest < cosine)
        return ops.logical_and(far, ops.expand_dims(count < max_seeds, -1))

    def draw(modes: Tensor, count: Tensor, closest: Tensor) -> tuple[Tensor, ...]:
        key = order * ops.cast(left_over(count, closest), x.dtype)
        key, index = ops.top_k(ops.pad(key, [[0, 0], [0, SEED_BLOCK]]), SEED_BLOCK)
        index = ops.minimum(ops.cast(index, "int32"), n - 1)
        seeds = ops.take(flat, offset + index, axis=0)
        # A seed that is close to an earlier one of this draw can wait for the next.
        near = ops.cast(ops.matmul(seeds, ops.swapaxes(seeds, 1, 2)) >= cosine, x.dtype)
        there = ops.cast(key > 0, x.dtype)
        rivals = ops.sum(near * earlier * ops.expand_dims(there, 1), axis=-1)
        taken = there * ops.cast(rivals < 0.5, x.dtype)
        slot = ops.expand_dims(count, -1) + ops.cast(ops.cumsum(taken, axis=1), "int32") - 1
        taken = taken * ops.cast(slot < max_seeds, x.dtype)
        seeds = seeds * ops.expand_dims(taken, -1)
        found = climb(seeds)
        both = ops.concatenate([seeds, found], axis=1)
        closest = ops.maximum(closest, ops.max(ops.matmul(x, ops.swapaxes(both, 1, 2)), axis=-1))
        count += ops.cast(ops.sum(taken, axis=1), "int32")
        return modes + _placed(found, slot, modes), count, closest

    start = (
        ops.zeros((batch, slots, depth), x.dtype),
        ops.zeros((batch,), "int32"),
        ops.zeros_like(x[..., 0]) + _FAR,
    )
    return run_while(lambda _, *state: ops.any(left_over(*state)), draw, start)[:2]


def _climb(
    seeds: Tensor,
    x: Tensor,
    weights: Tensor,
    kappa: Tensor,
    max_iterations: int,
    tolerance: float,
) -> Tensor:
    """Move the seeds to the modes of the weighted density of the points; zeros stay zeros."""
    values = ops.concatenate([x * weights, weights], axis=-1)
    there = ops.cast(ops.any(seeds != 0, axis=-1, keepdims=True), x.dtype)

    def loop(i: Tensor, y: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kernel = ops.exp(ops.matmul(x, ops.swapaxes(kappa * y, 1, 2)) - kappa)
        sums = ops.matmul(ops.swapaxes(kernel, 1, 2), values)
        mean = sums[..., :-1] / ops.maximum(sums[..., -1:], _TINY)
        squared = ops.sum(ops.square(mean), axis=-1, keepdims=True)
        # A seed far from all weight, or amid opposite points, has nowhere to go.
        moves = there * ops.cast(squared > _SHORTEST**2, x.dtype)
        moved = moves * mean * ops.rsqrt(ops.maximum(squared, _SHORTEST**2)) + (1.0 - moves) * y
        return i + 1, moved, ops.max(ops.sum(ops.square(moved - y), axis=-1))

    return run_while(
        lambda i, _, change: ops.logical_and(i < max_iterations, change > tolerance),
        loop,
        (ops.zeros((), "int32"), seeds, ops.ones((), x.dtype)),
    )[1]


def _distinct(modes: Tensor, count: Tensor, cosine: float) -> tuple[Tensor, Tensor]:
    """Keep the first of the modes that are linked by steps of at most `cosine`."""
    slots = ops.shape(modes)[1]
    index = ops.arange(slots, dtype="int32")
    there = index[None, :] < ops.expand_dims(count, -1)
    linked = ops.logical_and(
        ops.matmul(modes, ops.swapaxes(modes, 1, 2)) >= cosine, ops.expand_dims(there, 1)
    )
    # Above every index where there is no link.
    apart = ops.cast(ops.logical_not(linked), "int32") * slots

    def spread(first: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        new = ops.minimum(first, ops.min(ops.expand_dims(first, 1) + apart, axis=-1))
        return new, ops.any(new != first)

    first = ops.zeros_like(ops.cast(modes[..., 0], "int32")) + index
    first, _ = run_while(lambda _, changed: changed, spread, (first, ops.any(there)))
    kept = ops.cast(ops.logical_and(first == index, there), modes.dtype)
    slot = ops.cast(ops.cumsum(kept, axis=1), "int32") - 1
    packed = _placed(modes * ops.expand_dims(kept, -1), slot, modes)
    return packed, ops.cast(ops.sum(kept, axis=1), "int32")


def _nearest(x: Tensor, modes: Tensor, count: Tensor) -> Tensor:
    """The nearest mode of each point, or the point itself in lists without a mode."""

    def compare(first: Tensor, nearest: Tensor, best: Tensor) -> tuple[Tensor, ...]:
        block = _block(modes, first)
        empty = 1.0 - ops.swapaxes(_is_filled(first, count, x.dtype), 1, 2)
        cosine = ops.matmul(x, ops.swapaxes(block, 1, 2)) + 2.0 * _FAR * empty
        highest = ops.max(cosine, axis=-1, keepdims=True)
        # A product with ones and zeros in place of an index, which is slower to find.
        mode = ops.matmul(ops.cast(cosine >= highest, x.dtype), block)
        closer = highest > best
        return (
            first + SEED_BLOCK,
            ops.where(closer, mode, nearest),
            ops.where(closer, highest, best),
        )

    start = (x, ops.zeros_like(x[..., :1]) + _FAR)
    return _over_blocks(count, compare, start)[0]


def _over_blocks(count: Tensor, body: Callable[..., tuple[Tensor, ...]], state: tuple) -> tuple:
    """Run over the blocks of slots of which any is filled in any list."""
    first = ops.zeros((), "int32")
    return run_while(lambda first, *_: ops.any(first < count), body, (first, *state))[1:]


def _block(slots: Tensor, first: Tensor) -> Tensor:
    return ops.take(slots, first + ops.arange(SEED_BLOCK, dtype="int32"), axis=1)


def _is_filled(first: Tensor, count: Tensor, dtype: str) -> Tensor:
    """Which slots of a block are filled, `(batch, SEED_BLOCK, 1)`, as 0 and 1."""
    index = first + ops.arange(SEED_BLOCK, dtype="int32")
    return ops.cast(index[None, :, None] < ops.reshape(count, (-1, 1, 1)), dtype)


def _placed(rows: Tensor, slot: Tensor, like: Tensor) -> Tensor:
    """Rows `(batch, k, D)` in the slots of their numbers, `(batch, k)`, zeros elsewhere."""
    slots = ops.arange(ops.shape(like)[1], dtype="int32")
    return ops.matmul(ops.cast(slots[:, None] == ops.expand_dims(slot, 1), rows.dtype), rows)
