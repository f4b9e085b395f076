"""Sums over all pairs of points, in tiles of a symmetric matrix that are each formed once.

For a symmetric matrix S of all pairs of points, `symmetric_sums` gives S V without keeping S. The
points are cut into blocks, and S into tiles, one for each pair of blocks. The tile S_ab adds
S_ab V_b to the sums of block a and, as its mirror image is S_ba, S_abᵀ V_a to those of block b: one
visit is enough for each unordered pair.

To visit each pair once, the blocks lie on a ring, and every block meets the one that is `offset`
places ahead of it. With five blocks:

    offset 0:  00 11 22 33 44   the diagonal: each tile is its own mirror image
    offset 1:  01 12 23 34 40
    offset 2:  02 13 24 30 41   now all pairs have met

So the offsets are those up to half of the ring. In an even ring, blocks that are half of the ring
apart would meet twice, once from either side, so there only the first half of the blocks meets the
second. All tiles of one offset are formed by one batched product.

The tiles of a long list would not fit a processor's cache, so the list is first cut into segments
of a few blocks. The segments lie on a ring as well: each meets itself (`_within`), and then those
at each offset up to half of the ring (`_between`), where every block of one meets every block of
the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_rpe.ops.backend import run_while
from keras_rpe.ops.maps import missing_to_multiple

Tensor = Any
Tensors = Sequence[Tensor]
Factors = Callable[..., tuple[Tensors, Tensors, Tensors]]
Products = Callable[[Tensors, Tensors], Tensors]

_BLOCKS = 8  # Blocks of a segment at most.
# The same, of a list whose length is known: it takes fewer steps and copies to form the tiles
# within a segment than those between two.
_BLOCKS_OF_KNOWN_LISTS = 32
_ELEMENTS = 2**19  # Elements of the tiles that are formed at a time.
_GROUPS = 8  # Groups of a round: the results of a round are copied at each of its groups.
_CACHE_LINE = 16  # Products of rows that are not a multiple of it take a sixth longer.
_ROWS = 2048  # Whole rows that are taken at a time,
_ROW_ELEMENTS = 2**27  # and elements of the kernel.
_ALIGNED = 8  # Tensor cores of GPUs take widths that are a multiple of it.


class SegmentGrid(NamedTuple):
    """Sizes of the segments and blocks into which lists are cut; some may be scalar tensors.

    A list of points is padded and cut into segments, and a segment into a few blocks. So many
    segments are worked on together as their tiles fit a processor's cache: a group.

    Attributes:
        lists: Lists, with those that are padding: a whole number of rounds.
        segments: Segments of a list.
        blocks: Blocks of a segment, always a Python integer.
        points: Points of a block.
        group: Segments in a group.
        round: Segments in a round, which is some groups.
        whole_rows: Whether a segment meets all points at once, in place of its tiles.

    Example:
        >>> from keras_rpe.ops.tiles import SegmentGrid
        >>> SegmentGrid.of(3, 5000)
        SegmentGrid(lists=3, segments=1, blocks=20, points=256, group=1, round=3, whole_rows=False)
    """

    lists: Any
    segments: Any
    blocks: int
    points: Any
    group: Any
    round: Any
    whole_rows: bool = False

    @classmethod
    def of(
        cls, lists: Tensor | int, length: Tensor | int, block_size: int | None = None
    ) -> SegmentGrid:
        """Choose sizes for some lists of some points, with blocks of at most `block_size`."""
        known = isinstance(length, int)
        if block_size is None:
            block_size = 128 if known and length < 2048 else 256
        lists, length = _at_least_1(lists), _at_least_1(length)
        blocks = min(_quotient(length, block_size), _BLOCKS_OF_KNOWN_LISTS) if known else _BLOCKS
        segments = _quotient(length, blocks * block_size)
        points = _quotient(length, segments * blocks)
        points += missing_to_multiple(points, min(block_size, _CACHE_LINE))
        groups = _quotient(lists, _at_least_1(_ELEMENTS // (blocks * points * points)))
        rounds = _quotient(groups, _GROUPS)
        groups = _quotient(groups, rounds)
        group = _quotient(lists, rounds * groups)
        return cls(rounds * groups * group, segments, blocks, points, group, groups * group)

    @classmethod
    def of_rows(
        cls, lists: Tensor | int, length: Tensor | int, block_size: int | None = None
    ) -> SegmentGrid:
        """Choose sizes for whole rows: a segment is one block of at most `block_size` of them.

        That is twice the arithmetic of tiles in a few large operations: a GPU waits for the
        launches of many small ones, not for products.
        """
        lists, length = _at_least_1(lists), _at_least_1(length)
        if block_size is None:
            # In this order, as the square of a length may be above 2³¹.
            block_size = _at_least_1(_ROW_ELEMENTS // lists // length)
            known = isinstance(block_size, int)
            block_size = min(block_size, _ROWS) if known else ops.minimum(block_size, _ROWS)
        segments = _quotient(length, block_size)
        points = _quotient(length, segments)
        points += missing_to_multiple(points, _CACHE_LINE)
        return cls(lists, segments, 1, points, lists, lists, whole_rows=True)

    def cut(self, x: Tensor) -> Tensor:
        """Cut `(lists, length, D)` into `(segments · lists, points, D)`, all first segments first.

        What is added to make the sizes whole is 0.
        """
        (lists, length), depth = ops.shape(x)[:2], x.shape[-1]
        points = self.blocks * self.points
        x = ops.pad(x, [[0, self.lists - lists], [0, self.segments * points - length], [0, 0]])
        x = ops.transpose(ops.reshape(x, (self.lists, self.segments, points, depth)), (1, 0, 2, 3))
        return ops.reshape(x, (self.segments * self.lists, points, depth))

    def join(self, x: Tensor) -> Tensor:
        """Undo `cut` for a stack `(..., segments · lists, points, D)`, but for what was added."""
        points, depth = self.blocks * self.points, x.shape[-1]
        x = ops.reshape(x, (-1, self.segments, self.lists, points, depth))
        x = ops.transpose(x, (0, 2, 1, 3, 4))
        return ops.reshape(x, (-1, self.lists, self.segments * points, depth))

    def rows(self, x: Tensor) -> Tensor:
        """Blocks of a group of segments, `(blocks, group, points, D)`."""
        if self.blocks == 1:
            return x[None]
        x = ops.reshape(x, (self.group, self.blocks, self.points, x.shape[-1]))
        return ops.transpose(x, (1, 0, 2, 3))

    def columns(self, x: Tensor) -> Tensor:
        """Transposed blocks of a group of segments, `(blocks, group, D, points)`."""
        return _transposed(self.rows(x))


def _quotient(length: Tensor | int, size: Tensor | int) -> Tensor | int:
    """The quotient, rounded up."""
    return (length + size - 1) // size


def _at_least_1(length: Tensor | int) -> Tensor | int:
    return max(length, 1) if isinstance(length, int) else ops.maximum(length, 1)


def symmetric_sums(
    points: Tensors,
    factors: Factors,
    products: Products,
    width: int,
    grid: SegmentGrid,
) -> Tensor:
    """Sum S V over the points of each list, for symmetric matrices S, without keeping S.

    Args:
        points: What the factors are made of, each `(segments · lists, points, ...)`.
        factors: Takes some segments of each of them, and gives rows, columns and one V for each S,
            all `(segments, points, ...)`.
        products: Takes blocks of rows `(..., points, ...)` and of columns `(..., ..., points)` and
            gives the tile of each S between the two, `(..., points, points)`.
        width: Entries of all V together.
        grid: How the lists were cut.

    Returns:
        The sums side by side, `(segments · lists, points, width)`.

    Example:
        >>> import numpy as np
        >>> from keras import ops
        >>> from keras_rpe.ops.tiles import SegmentGrid, symmetric_sums
        >>> x, grid = np.random.rand(2, 300, 3).astype("float32"), SegmentGrid.of(2, 300)
        >>> sums = symmetric_sums(
        ...     (grid.cut(x),),
        ...     lambda x: ((x,), (x,), (x,)),
        ...     lambda rows, columns: (ops.matmul(rows[0], columns[0]),),
        ...     3,
        ...     grid,
        ... )
        >>> expected = x @ x.transpose(0, 2, 1) @ x
        >>> bool(np.allclose(grid.join(sums)[0, :, :300], expected, rtol=1e-4))
        True
    """
    if grid.whole_rows:
        return _row_sums(points, factors, products, width, grid)
    group, lists = grid.group, grid.lists
    count = grid.segments * lists

    def blocks(points: Tensors) -> _Blocks:
        rows, columns, values = factors(*points)
        return _Blocks(
            [grid.rows(x) for x in rows],
            [grid.columns(x) for x in columns],
            [grid.columns(x) for x in values],
        )

    def own(points: Tensors) -> Tensor:
        return _within(blocks(points), products)

    sums = _by_parts(lambda x: _by_parts(own, x, group, width), points, grid.round, width)
    if isinstance(grid.segments, int) and grid.segments == 1:
        return sums

    # Now the ring of segments. No operation of mobile runtimes writes into a part of a tensor, so
    # both sums are queues: the group at the front is taken off, and put at the back with its tiles
    # added. At each offset, `near` begins with the first segment and `far` with the one that is
    # `offset` ahead, and a whole turn leaves both as they were.
    ahead_too = [_twice(x) for x in points]  # so that a slice may reach over the end of the ring

    def at_offset(offset: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, ...]:
        ahead = offset * lists
        # Half of an even ring apart, the first half of the segments meets the second.
        end = ops.where(2 * offset == grid.segments, count // 2, count)

        def meet(at: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, ...]:
            to_near, to_far = _between(
                blocks(_part(points, at, group)),
                blocks(_part(ahead_too, at + ahead, group)),
                products,
            )
            # A sum of more than two terms in a loop is rewritten by TensorFlow's optimizer into a
            # temporary variable, which fails in nested loops.
            near = ops.concatenate([near[group:], near[:group] + to_near], axis=0)
            return at + group, near, ops.concatenate([far[group:], far[:group] + to_far], axis=0)

        far = ops.concatenate([far[lists:], far[:lists]], axis=0)
        state = (0 * offset, near, far)
        return (offset + 1, *run_while(lambda at, *sums: at < end, meet, state)[1:])

    state = (ops.ones((), "int32"), sums, ops.zeros_like(sums))
    near, far = run_while(lambda offset, *sums: 2 * offset <= grid.segments, at_offset, state)[1:]
    # `far` is one segment ahead for each offset, and an even ring has left both half way round.
    offsets = grid.segments // 2
    half_turn = (1 - grid.segments % 2) * offsets
    far = _turned_back(far, (offsets + half_turn) % grid.segments * lists)
    return _turned_back(near, half_turn * lists) + far


def _row_sums(
    points: Tensors, factors: Factors, products: Products, width: int, grid: SegmentGrid
) -> Tensor:
    """The sums by blocks of rows that each meet all columns at once."""

    def whole(x: Tensor) -> Tensor:
        return grid.join(_aligned(x))[0]

    _, columns, values = factors(*points)
    columns, values = [ops.swapaxes(whole(x), 1, 2) for x in columns], [whole(v) for v in values]

    def meet_all(part: Tensors) -> Tensor:
        rows, _, own = factors(*part)
        tiles = products([_aligned(x) for x in rows], columns)
        sums = [ops.matmul(tile, v) for tile, v in zip(tiles, values)]
        return ops.concatenate([s[..., : v.shape[-1]] for s, v in zip(sums, own)], axis=-1)

    return _by_parts(meet_all, points, grid.lists, width)


def _aligned(x: Tensor) -> Tensor:
    return ops.pad(x, [[0, 0], [0, 0], [0, -x.shape[-1] % _ALIGNED]])


class _Blocks(NamedTuple):
    """Blocks of a group of segments: rows, and the transposed columns and values of each V."""

    rows: Tensors
    columns: Tensors
    values: Tensors


def _by_parts(
    function: Callable[[Tensors], Tensor], points: Tensors, size: Tensor | int, width: int
) -> Tensor:
    """Apply a function of some segments to all of them, part by part."""
    count = ops.shape(points[0])[0]
    if isinstance(size, int) and size == count:
        return function(points)

    def body(at: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        new = function(_part(points, at, size))
        return at + size, ops.concatenate([done[size:], new], axis=0)

    nothing = ops.zeros_like(points[0][..., :1]) + ops.zeros((width,), points[0].dtype)
    return run_while(lambda at, done: at < count, body, (ops.zeros((), "int32"), nothing))[1]


def _within(blocks: _Blocks, products: Products) -> Tensor:
    """Sums over the points of the same segment, whose blocks are a ring."""
    count, values = blocks.rows[0].shape[0], blocks.values
    tiles = products(blocks.rows, blocks.columns)
    sums = [_to_rows(tile, v) for tile, v in zip(tiles, values)]
    half = count // 2
    if count % 2 == 0:
        tiles = products([x[:half] for x in blocks.rows], [x[half:] for x in blocks.columns])
        sums = [
            total + ops.concatenate([_to_rows(tile, v[half:]), _to_columns(tile, v[:half])], axis=0)
            for total, tile, v in zip(sums, tiles, values)
        ]
    if count > 2:
        to_near, to_far = _all_meet(blocks, blocks, products, range(1, (count + 1) // 2), sums)
        sums = [a + b for a, b in zip(to_near, to_far)]
    return _points(sums)


def _between(near: _Blocks, far: _Blocks, products: Products) -> tuple[Tensor, Tensor]:
    """Sums of near segments over the points of far ones, and of the far over the near."""
    nothing = [ops.zeros_like(_transposed(v)) for v in far.values]
    offsets = range(near.rows[0].shape[0])
    to_near, to_far = _all_meet(near, far, products, offsets, nothing)
    return _points(to_near), _points(to_far)


def _all_meet(
    near: _Blocks, far: _Blocks, products: Products, offsets: range, sums: Tensors
) -> tuple[Tensors, Tensors]:
    """Let each near block meet the far ones at some offsets on the ring.

    What that adds to the near blocks is added to `sums`, and what it adds to the far ones is
    given beside.
    """
    count, split = near.rows[0].shape[0], len(far.columns)
    ring = ops.arange(count)
    # With the ring repeated, a slice along the first axis needs no copy.
    rings = [_twice(x, offsets.stop - 1) for x in (*far.columns, *far.values)]

    def meet(offset: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
        ahead = [ops.slice(x, (offset, 0, 0, 0), (count, *ops.shape(x)[1:])) for x in rings]
        tiles = products(near.rows, ahead[:split])
        to_near = [_to_rows(tile, v) for tile, v in zip(tiles, ahead[split:])]
        # Far block b met the near one `offset` places behind it.
        behind = (ring + (count - offset)) % count
        to_far = [
            ops.take(ops.matmul(v, tile), behind, axis=0) for tile, v in zip(tiles, near.values)
        ]
        return (offset + 1, *(total + new for total, new in zip(sums, to_near + to_far)))

    start = ops.zeros((), "int32") + offsets.start
    state = (start, *sums, *(ops.zeros_like(v) for v in near.values))
    sums = run_while(lambda offset, *sums: offset < offsets.stop, meet, state)[1:]
    return sums[: len(near.values)], [_transposed(v) for v in sums[len(near.values) :]]


def _to_rows(tiles: Tensor, values: Tensor) -> Tensor:
    """What tiles add to the sums of their rows, by the values of their columns: S_ab V_b."""
    return ops.einsum("abij,abdj->abid", tiles, values)


def _to_columns(tiles: Tensor, values: Tensor) -> Tensor:
    """What tiles add to the sums of their columns, by the values of their rows: S_abᵀ V_a."""
    return _transposed(ops.matmul(values, tiles))


def _transposed(blocks: Tensor) -> Tensor:
    return ops.transpose(blocks, (0, 1, 3, 2))


def _twice(x: Tensor, more: int | None = None) -> Tensor:
    """A ring, followed by its beginning."""
    return ops.concatenate([x, x[:more]], axis=0)


def _part(points: Tensors, at: Tensor, size: Tensor | int) -> Tensors:
    return [ops.slice(x, (at, 0, 0), (size, *ops.shape(x)[1:])) for x in points]


def _turned_back(x: Tensor, by: Tensor | int) -> Tensor:
    """A ring in which what is first comes `by` places later."""
    shape = ops.shape(x)
    return ops.slice(_twice(x), (shape[0] - by, 0, 0), shape)


def _points(sums: Tensors) -> Tensor:
    """Blocks of rows, `(blocks, group, points, D)`, as `(group, points, D)`, side by side."""
    x = ops.concatenate(sums, axis=-1)
    if x.shape[0] == 1:
        return x[0]
    x = ops.transpose(x, (1, 0, 2, 3))
    shape = ops.shape(x)
    return ops.reshape(x, (shape[0], shape[1] * shape[2], x.shape[-1]))
