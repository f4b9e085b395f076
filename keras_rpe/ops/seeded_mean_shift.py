"""Mean shift of a few seeds with the data held fixed: time linear in the number of points.

The blurring mean shift of `mean_shift` compares all points with all points. Where only the groups
are wanted, a few seeds suffice:

1. `_find_modes` takes a sample of the points that are left over, which are those not yet close to a
   mode; `_modes_of_sample` draws seeds in it, until every point of the sample is close to a seed,
   and each seed climbs the density of the sample. Again, until no point is left over.
2. The modes climb the density of all eligible points, those of at least `seed_weight` (`_climb`),
   and those that meet become one (`_distinct`).
3. Each point takes its nearest mode (`_nearest`).

No operation has a shape that depends on data. So the modes of a list lie in a table of fixed
length: the first `count` of its slots are filled, and the others are 0. The table is worked on in
blocks of slots, and only the blocks that are used cost time. The points lie in blocks, too, the
eligible ones first (`_eligible_first`), and step 2 takes the blocks that have any.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from keras import ops

from keras_rpe.ops.backend import run_while, take
from keras_rpe.ops.maps import missing_to_multiple
from keras_rpe.ops.mean_shift import SHORTEST, unit

Tensor = Any

SEED_BLOCK = 32
"""Seeds that are drawn, moved and compared with all points together."""

SAMPLE = 4096
"""Points at most among which seeds are drawn and climb first."""

POINT_BLOCK = 2048
"""Eligible points that modes are compared with together."""

_FAR = -2.0  # Below any cosine.
_ABSENT = -200.0  # As the logarithm of a weight.
_NO_WEIGHT = 1 / 256  # Up to which a point is of no group: most of the background.


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
        weights: Weight of each point as a neighbor, in [0, 1], shape `(batch, N, 1)`. Default: 1.
        seed_weight: Least weight of a point that needs a seed close to it. Lighter points take
            their nearest mode, and are no neighbors.
        seed_similarity: Calibrated cosine similarity (1 + cos)/2 to a seed, in [0, 1], at which a
            point needs none of its own.
        mode_similarity: Similarity at which two modes are one.
        tolerance: Squared distance below which a loop has moved nothing.

    Returns:
        `(batch, N, D)`: the mode of each point, the same vector for all points of a group; the
        points themselves where their weight is at most 1/256, and in lists where none needs a seed.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import seeded_mean_shift
        >>> x = np.array([[[1.0, 0.0], [0.96, 0.28], [-1.0, 0.0]]])
        >>> modes = np.asarray(seeded_mean_shift(x))[0]
        >>> bool(np.all(modes[0] == modes[1])), modes[2].round(4).tolist()
        (True, [-1.0, 0.0])
    """
    modes, slot = seeded_modes(
        x,
        bandwidth,
        max_seeds,
        max_iterations,
        weights,
        seed_similarity,
        mode_similarity,
        seed_weight,
        tolerance,
    )
    return modes_of_points(modes, slot, ops.stop_gradient(ops.convert_to_tensor(x)))


def seeded_modes(
    x: Tensor,
    bandwidth: Tensor | float,
    max_seeds: int,
    max_iterations: int,
    weights: Tensor | None,
    seed_similarity: float,
    mode_similarity: float,
    seed_weight: float = 0.5,
    tolerance: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Do what `seeded_mean_shift` does; return the modes, and which of them each point has.

    The modes are `(batch, slots, D)`. The numbers of slots, int32 `(batch, N)`, count on from one
    list to the next, and are -1 for points of no weight and in lists without a mode.
    """
    x = ops.stop_gradient(ops.convert_to_tensor(x))
    kappa = ops.stop_gradient(1.0 / ops.square(ops.convert_to_tensor(bandwidth, dtype=x.dtype)))
    squared = ops.sum(ops.square(x), axis=-1)
    weights = ops.ones_like(squared) if weights is None else ops.cast(weights[..., 0], x.dtype)
    weights = ops.stop_gradient(weights)
    # A zero vector would not even be close to itself.
    eligible = ops.logical_and(weights >= seed_weight, squared > 0.25)
    place, order, number, many = _eligible_first(eligible, weights > _NO_WEIGHT)
    batch, padded = ops.shape(order)
    points = take(ops.reshape(x, (-1, x.shape[-1])), order, axis=0)
    # The points, as both factors of the products with seeds y. As rows, their product with (κ y, 1)
    # is the exponent of the kernel, κ (x·y - |x|) + log w, which never rises above log w. As
    # columns, their product with a kernel is the weighted sum of the points, and its total.
    length = ops.sqrt(ops.maximum(squared, 1.0))
    exponent = take(ops.reshape(_logarithm(weights) - kappa * length, (-1,)), order, axis=0)
    eligible = ops.expand_dims(ops.arange(padded, dtype="int32"), 0) < number
    exponent = ops.where(eligible, exponent, _ABSENT)
    rows = ops.concatenate([points, ops.expand_dims(exponent, -1)], axis=-1)
    side = _block_side(ops.shape(x)[1])
    columns = ops.reshape(points, (batch, padded // side, side, x.shape[-1]))
    columns = _with_ones(ops.swapaxes(columns, 2, 3))
    blocks = ops.reshape(rows, (batch, padded // side, side, rows.shape[-1])), columns
    used, any_weight = ((ops.max(n, initial=0) + side - 1) // side for n in (number, many))
    climb = partial(_climb, kappa=kappa, max_iterations=max_iterations, tolerance=tolerance)

    first = ops.expand_dims(ops.arange(batch, dtype="int32") * ops.shape(x)[1], 1)
    modes, count = _find_modes(
        rows, columns, used, eligible, order - first, climb, max_seeds, 2 * seed_similarity - 1
    )
    # After one loop among all points, most of the modes that were found twice are one.
    for loops in (1, max_iterations):
        sums = partial(_sums_over_blocks, *blocks, used)
        climb_all = partial(climb, sums=sums, max_iterations=loops)
        modes = _each_block(modes, count, climb_all)
        modes, count = _distinct(modes, count, 2 * mode_similarity - 1)
    nearest = _nearest(columns, any_weight, modes, count)
    # Others may lie in the last of these blocks, or in those of a list with more points.
    nearest = ops.where(ops.expand_dims(ops.arange(padded, dtype="int32"), 0) < many, nearest, -1)
    return modes, take(ops.reshape(nearest, (-1,)), place, axis=0)


def modes_of_points(modes: Tensor, slot: Tensor, x: Tensor) -> Tensor:
    """The mode of each point by its number, as `seeded_modes` gives it; the point itself at -1."""
    width = x.shape[-1]
    table = ops.concatenate([ops.reshape(x, (-1, width)), ops.reshape(modes, (-1, width))], axis=0)
    points = ops.size(slot)
    own = ops.reshape(ops.arange(points, dtype="int32"), ops.shape(slot))
    return take(table, ops.where(slot < 0, own, slot + points), axis=0)


def _block_side(n: Tensor | int) -> Tensor | int:
    return max(min(n, POINT_BLOCK), 1) if isinstance(n, int) else ops.clip(n, 1, POINT_BLOCK)


def _eligible_first(eligible: Tensor, there: Tensor) -> tuple[Tensor, ...]:
    """Where points go if the eligible ones come first, and then those that are there at all.

    And which point then lies in each place. Places are whole blocks of points in each list, so the
    last ones hold any point. Both count on from one list to the next, int32 `(batch, N)` and
    `(batch, places)`. And how many points of each list are eligible, and how many are there or
    eligible, int32 `(batch, 1)`.
    """
    batch, n = ops.shape(eligible)
    padded = n + missing_to_multiple(n, _block_side(n))
    first = ops.cast(eligible, "int32")
    second = ops.cast(there, "int32") * (1 - first)
    kinds = first, second, 1 - first - second
    place, before = 0, 0
    for kind in kinds:
        place += kind * (before + ops.cumsum(kind, axis=1) - 1)
        before += ops.sum(kind, axis=1, keepdims=True)
    place += ops.expand_dims(ops.arange(batch, dtype="int32") * padded, 1)
    index = ops.arange(batch * n, dtype="int32")
    order = ops.scatter(ops.reshape(place, (-1, 1)), index, (batch * padded,))
    number = ops.sum(first, axis=1, keepdims=True)
    many = number + ops.sum(second, axis=1, keepdims=True)
    return place, ops.reshape(order, (batch, padded)), number, many


def _find_modes(
    rows: Tensor,
    columns: Tensor,
    used: Tensor,
    eligible: Tensor,
    index: Tensor,
    climb: Callable[..., Tensor],
    max_seeds: int,
    cosine: float,
) -> tuple[Tensor, Tensor]:
    """Find the modes of samples of the points that are left over, until none is left over.

    An eligible point is left over while no mode lies within `cosine` of it and no sample had it.

    Returns the modes `(batch, slots, D)`, zero beyond their number, and that number `(batch,)`;
    several may be the same.
    """
    batch, n, width = ops.shape(rows)[0], ops.shape(rows)[1], rows.shape[-1]
    slots = -(-max_seeds // SEED_BLOCK) * SEED_BLOCK
    size = min(n, SAMPLE) if isinstance(n, int) else ops.minimum(n, SAMPLE)
    # The order in which points are drawn: each has a fixed priority, a number from 1 to 65521 that
    # jumps about from one point to the next, so that it follows no pattern of the data. A sample is
    # the points of the highest priorities among those left over, which is a fair sample of them
    # without a random number. The product is below 2³¹.
    priority = ops.cast(index % 46337 * 46327 % 65521 + 1, rows.dtype)
    first_of_list = ops.reshape(ops.arange(batch, dtype="int32") * n, (batch, 1))
    all_rows = ops.reshape(rows, (batch * n, width))

    def left_over(modes: Tensor, count: Tensor, closest: Tensor) -> Tensor:
        far = ops.logical_and(eligible, closest < cosine)
        return ops.logical_and(far, ops.expand_dims(count < max_seeds, -1))

    def search(modes: Tensor, count: Tensor, closest: Tensor) -> tuple[Tensor, ...]:
        key = priority * ops.cast(left_over(modes, count, closest), rows.dtype)
        key, chosen = ops.top_k(key, size)
        chosen = first_of_list + ops.cast(chosen, "int32")
        sample = take(all_rows, chosen, axis=0)
        first_new = ops.min(count)
        modes, count = _modes_of_sample(sample, key, modes, count, climb, max_seeds, cosine)

        def nearer(points: Tensor, closest: Tensor) -> Tensor:
            def compare(first: Tensor, closest: Tensor) -> tuple[Tensor]:
                highest = ops.max(_cosines(modes, count, first, points), axis=1)
                return (ops.maximum(closest, highest),)

            return _over_blocks(first_new, count, compare, (closest,))[0]

        closest = _each_point_block(columns, used, nearer, closest)
        # What was in the sample counts as close to a mode, wherever its seed has climbed to.
        sampled = ops.scatter(
            ops.reshape(chosen, (-1, 1)), ops.reshape(ops.ones_like(key), (-1,)), (batch * n,)
        )
        return modes, count, closest + (1.0 - _FAR) * ops.reshape(sampled, (batch, n))

    start = (
        ops.zeros((batch, slots, width - 1), rows.dtype),
        ops.zeros((batch,), "int32"),
        ops.zeros_like(rows[..., 0]) + _FAR,
    )
    return run_while(lambda *state: ops.any(left_over(*state)), search, start)[:2]


def _modes_of_sample(
    sample: Tensor,
    key: Tensor,
    modes: Tensor,
    count: Tensor,
    climb: Callable[..., Tensor],
    max_seeds: int,
    cosine: float,
) -> tuple[Tensor, Tensor]:
    """Draw seeds among the points of a sample and let them climb, until none is left over.

    `key` is the priority of each point, 0 for what only fills the sample up. Each draw takes the
    points left over of the highest priorities as seeds, up to a block of them, but none that is
    close to one before it.
    """
    batch, size = ops.shape(sample)[0], ops.shape(sample)[1]
    there = ops.cast(key > 0, key.dtype)
    points = sample[..., :-1]
    columns = _with_ones(ops.swapaxes(points, 1, 2))
    absent = (1.0 - there) * _ABSENT
    rows = ops.concatenate([points, sample[..., -1:] + ops.expand_dims(absent, -1)], axis=-1)
    all_points = ops.reshape(points, (batch * size, points.shape[-1]))
    first_of_list = ops.reshape(ops.arange(batch, dtype="int32") * size, (batch, 1))
    place = ops.arange(SEED_BLOCK)
    before = ops.cast(place[None, :] < place[:, None], key.dtype)

    def left_over(count: Tensor, closest: Tensor) -> Tensor:
        far = ops.logical_and(key > 0, closest < cosine)
        return ops.logical_and(far, ops.expand_dims(count < max_seeds, -1))

    def draw(modes: Tensor, count: Tensor, closest: Tensor) -> tuple[Tensor, ...]:
        rest = key * ops.cast(left_over(count, closest), key.dtype)
        rest, index = ops.top_k(ops.pad(rest, [[0, 0], [0, SEED_BLOCK]]), SEED_BLOCK)
        index = ops.minimum(ops.cast(index, "int32"), size - 1)
        seeds = unit(take(all_points, first_of_list + index, axis=0))
        # A seed that is close to an earlier one of this draw can wait for the next.
        near = ops.cast(ops.matmul(seeds, ops.swapaxes(seeds, 1, 2)) >= cosine, key.dtype)
        drawn = ops.cast(rest > 0, key.dtype)
        rivals = ops.sum(near * before * ops.expand_dims(drawn, 1), axis=-1)
        taken = drawn * ops.cast(rivals < 0.5, key.dtype)
        slot = ops.expand_dims(count, -1) + ops.cast(ops.cumsum(taken, axis=1), "int32") - 1
        taken = taken * ops.cast(slot < max_seeds, key.dtype)
        seeds = seeds * ops.expand_dims(taken, -1)
        found = climb(seeds, sums=partial(_sums, rows, columns))
        both = ops.concatenate([seeds, found], axis=1)
        closest = ops.maximum(closest, ops.max(ops.matmul(both, columns[:, :-1]), axis=1))
        count += ops.cast(ops.sum(taken, axis=1), "int32")
        return modes + _placed(found, slot, modes), count, closest

    start = (modes, count, ops.zeros_like(key) + _FAR)
    return run_while(lambda modes, *state: ops.any(left_over(*state)), draw, start)[:2]


def _climb(
    seeds: Tensor,
    sums: Callable[[Tensor], Tensor],
    kappa: Tensor,
    max_iterations: int,
    tolerance: float,
) -> Tensor:
    """Move the seeds to the modes of the weighted density of the points; zeros stay zeros.

    A list whose seeds rest is left as it is, so that no list depends on the others of its batch.
    """
    there = ops.cast(ops.any(ops.not_equal(seeds, 0), axis=-1, keepdims=True), seeds.dtype)

    def loop(i: Tensor, y: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries = ops.concatenate([kappa * y, ops.ones_like(y[..., :1])], axis=-1)
        found = ops.swapaxes(sums(ops.swapaxes(queries, 1, 2)), 1, 2)
        total = found[..., -1:]
        # Selected, as are all guards here: files in float16 round a tiny constant to 0.
        mean = found[..., :-1] / ops.where(total > 0, total, 1.0)
        # A seed far from all weight, or amid opposite points, has nowhere to go.
        far = ops.sum(ops.square(mean), axis=-1, keepdims=True) <= SHORTEST**2
        moved = there * ops.where(far, y, unit(mean))
        moved = ops.where(ops.reshape(change > tolerance, (-1, 1, 1)), moved, y)
        return i + 1, moved, ops.max(ops.sum(ops.square(moved - y), axis=-1), axis=1)

    return run_while(
        lambda i, y, change: ops.logical_and(i < max_iterations, ops.any(change > tolerance)),
        loop,
        (ops.zeros((), "int32"), seeds, ops.ones_like(seeds[:, 0, 0])),
    )[1]


def _sums(rows: Tensor, columns: Tensor, queries: Tensor) -> Tensor:
    """The kernel-weighted sum of the points, and its total, for each column of the queries."""
    return ops.matmul(columns, ops.exp(ops.matmul(rows, queries)))


def _sums_over_blocks(rows: Tensor, columns: Tensor, count: Tensor, queries: Tensor) -> Tensor:
    """`_sums` of the first blocks of points."""

    def add(i: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        block = take(rows, i, axis=1), take(columns, i, axis=1)
        return i + 1, total + _sums(*block, queries)

    start = ops.zeros((), "int32"), ops.zeros_like(queries)
    return run_while(lambda i, _: i < count, add, start)[1]


def _each_block(modes: Tensor, count: Tensor, climb: Callable[[Tensor], Tensor]) -> Tensor:
    """The modes after a climb, block by block."""

    def body(first: Tensor, modes: Tensor) -> tuple[Tensor]:
        block = _block(modes, first)
        slot = first + ops.arange(SEED_BLOCK, dtype="int32")[None, :]
        return (modes + _placed(climb(block) - block, slot, modes),)

    return _over_blocks(ops.zeros((), "int32"), count, body, (modes,))[0]


def _distinct(modes: Tensor, count: Tensor, cosine: float) -> tuple[Tensor, Tensor]:
    """Keep the first of the modes that are linked by steps of at least `cosine`."""
    slots = ops.shape(modes)[1]
    index = ops.arange(slots, dtype="int32")
    there = index[None, :] < ops.expand_dims(count, -1)
    linked = ops.logical_and(
        ops.matmul(modes, ops.swapaxes(modes, 1, 2)) >= cosine, ops.expand_dims(there, 1)
    )
    # Above every index where there is no link.
    apart = ops.cast(ops.logical_not(linked), "int32") * slots

    def spread(first: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        new = ops.minimum(first, ops.min(ops.expand_dims(first, 1) + apart, axis=-1))
        return new, ops.any(ops.not_equal(new, first))

    first = ops.zeros_like(ops.cast(modes[..., 0], "int32")) + index
    first, _ = run_while(lambda first, changed: changed, spread, (first, ops.any(there)))
    kept = ops.cast(ops.logical_and(ops.equal(first, index), there), modes.dtype)
    slot = ops.cast(ops.cumsum(kept, axis=1), "int32") - 1
    packed = _placed(modes * ops.expand_dims(kept, -1), slot, modes)
    return packed, ops.cast(ops.sum(kept, axis=1), "int32")


def _nearest(columns: Tensor, used: Tensor, modes: Tensor, count: Tensor) -> Tensor:
    """The number of the nearest mode of each point, as `seeded_modes` numbers them."""
    batch, slots = ops.shape(modes)[0], ops.shape(modes)[1]

    def find(points: Tensor, _: Tensor) -> Tensor:
        def compare(first: Tensor, nearest: Tensor, best: Tensor) -> tuple[Tensor, ...]:
            cosine = _cosines(modes, count, first, points)
            highest = ops.max(cosine, axis=1)
            slot = ops.reshape(first + ops.arange(SEED_BLOCK, dtype="int32"), (1, SEED_BLOCK, 1))
            slot = ops.max(ops.where(cosine >= ops.expand_dims(highest, 1), slot, 0), axis=1)
            return ops.where(highest > best, slot, nearest), ops.maximum(highest, best)

        best = ops.zeros_like(points[:, 0]) + 2.0 * _FAR
        none = ops.cast(ops.zeros_like(best), "int32")
        return _over_blocks(ops.zeros((), "int32"), count, compare, (none, best))[0] + offset

    offset = ops.reshape(ops.arange(batch, dtype="int32") * slots, (batch, 1))
    none = ops.cast(ops.zeros_like(columns[:, :, 0]), "int32") - 1
    nearest = _each_point_block(columns, used, find, ops.reshape(none, (batch, -1)))
    return ops.where(ops.expand_dims(count > 0, 1), nearest, -1)


def _each_point_block(
    columns: Tensor, used: Tensor, body: Callable[[Tensor, Tensor], Tensor], state: Tensor
) -> Tensor:
    """What `body` makes of each of the first blocks of points and of their state, `(batch, N)`."""
    batch, blocks, _, side = ops.shape(columns)
    place = ops.reshape(ops.arange(blocks, dtype="int32"), (1, blocks, 1))

    def one(i: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        new = body(take(columns, i, axis=1), take(state, i, axis=1))
        here = ops.cast(ops.equal(place, i), state.dtype)
        return i + 1, state * (1 - here) + here * ops.expand_dims(new, 1)

    start = ops.zeros((), "int32"), ops.reshape(state, (batch, blocks, side))
    return ops.reshape(run_while(lambda i, _: i < used, one, start)[1], (batch, blocks * side))


def _over_blocks(
    first: Tensor, count: Tensor, body: Callable[..., tuple[Tensor, ...]], state: tuple
) -> tuple:
    """Run over the blocks of slots, from `first` on, of which any is filled in any list."""
    return run_while(
        lambda first, *state: ops.any(first < count),
        lambda first, *state: (first + SEED_BLOCK, *body(first, *state)),
        (first, *state),
    )[1:]


def _cosines(modes: Tensor, count: Tensor, first: Tensor, columns: Tensor) -> Tensor:
    """Cosines of a block of modes with points, `(batch, SEED_BLOCK, points)`, low where empty."""
    slot = first + ops.arange(SEED_BLOCK, dtype="int32")
    empty = ops.cast(slot[None, :, None] >= ops.reshape(count, (-1, 1, 1)), modes.dtype)
    return ops.matmul(ops.concatenate([_block(modes, first), _FAR * empty], axis=-1), columns)


def _logarithm(weights: Tensor) -> Tensor:
    there = weights > 0
    return ops.where(there, ops.log(ops.where(there, weights, 1.0)), _ABSENT)


def _with_ones(columns: Tensor) -> Tensor:
    return ops.concatenate([columns, ops.ones_like(columns[..., :1, :])], axis=-2)


def _block(slots: Tensor, first: Tensor) -> Tensor:
    """A block of the slots; it may reach over their end, where it repeats the last one."""
    index = ops.minimum(first + ops.arange(SEED_BLOCK, dtype="int32"), ops.shape(slots)[1] - 1)
    return take(slots, index, axis=1)


def _placed(rows: Tensor, slot: Tensor, like: Tensor) -> Tensor:
    """Rows `(batch, k, D)` in the slots of their numbers, `(batch, k)`, zeros elsewhere."""
    slots = ops.arange(ops.shape(like)[1], dtype="int32")
    return ops.matmul(
        ops.cast(ops.equal(slots[:, None], ops.expand_dims(slot, 1)), rows.dtype), rows
    )
