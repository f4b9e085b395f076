"""Sums over all pairs of points, tile by tile, that visit each unordered pair of tiles once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_rpe.ops.loops import run_while
from keras_rpe.ops.maps import missing_to_multiple

Tensor = Any

# The most blocks of a segment, and the elements of the tiles that are formed at a time.
_BLOCKS = 8
# Of a long list whose length is known: the tiles within a segment are formed with fewer steps and
# copies than those between two.
_BLOCKS_OF_LONG_LISTS = 32
_ELEMENTS = 2**19
# Groups of a round: the results of a round are copied at each of its groups.
_GROUPS = 8
# Products of rows that are no multiple of a cache line take a sixth longer.
_CACHE_LINE = 16


class SegmentGrid(NamedTuple):
    """Sizes of the segments and blocks into which lists are cut; some may be scalar tensors.

    A list of points is padded and cut into segments, a segment into a few blocks. Segments are
    worked on in groups, of which some are a round.

    Attributes:
        lists: Lists, with those that are padding: a whole number of rounds.
        segments: Segments of a list.
        blocks: Blocks of a segment, always a Python integer.
        points: Points of a block.
        group: Segments in a group.
        round: Segments in a round.

    Example:
        >>> from keras_rpe.ops.tiles import SegmentGrid
        >>> SegmentGrid.of(3, 5000)
        SegmentGrid(lists=3, segments=1, blocks=20, points=256, group=1, round=3)
    """

    lists: Any
    segments: Any
    blocks: int
    points: Any
    group: Any
    round: Any

    @classmethod
    def of(
        cls, lists: Tensor | int, length: Tensor | int, block_size: int | None = None
    ) -> SegmentGrid:
        """Choose sizes for some lists of some points, with blocks of at most `block_size`."""
        known = isinstance(length, int)
        if block_size is None:
            block_size = 128 if known and length < 2048 else 256
        lists, length = _at_least_1(lists), _at_least_1(length)
        blocks = min(_quotient(length, block_size), _BLOCKS_OF_LONG_LISTS) if known else _BLOCKS
        segments = _quotient(length, blocks * block_size)
        points = _quotient(length, segments * blocks)
        points += missing_to_multiple(points, min(block_size, _CACHE_LINE))
        groups = _quotient(lists, _at_least_1(_ELEMENTS // (blocks * points * points)))
        rounds = _quotient(groups, _GROUPS)
        groups = _quotient(groups, rounds)
        group = _quotient(lists, rounds * groups)
        return cls(rounds * groups * group, segments, blocks, points, group, groups * group)

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
        return ops.transpose(self.rows(x), (0, 1, 3, 2))


def _quotient(length: Tensor | int, size: Tensor | int) -> Tensor | int:
    """The quotient, rounded up."""
    return (length + size - 1) // size


def _at_least_1(length: Tensor | int) -> Tensor | int:
    return max(length, 1) if isinstance(length, int) else ops.maximum(length, 1)


Tensors = Sequence[Tensor]
Products = Callable[[Tensors, Tensors], Tensors]


def symmetric_sums(
    points: Tensors,
    factors: Callable[..., tuple[Tensors, Tensors, Tensors]],
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
        >>> from keras_rpe.ops.tiles import SegmentGrid
        >>> from keras_rpe.ops.tiles import symmetric_sums
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
    count, group = grid.segments * grid.lists, grid.group

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

    # The segments lie on a ring. Those at hand come first in both sums, which are passed on after
    # each step: one begins with the near segments, the other with those some offset ahead.
    twice = [_ring(x) for x in points]

    def at_offset(offset: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, ...]:
        ahead = offset * grid.lists
        # Half way round an even ring a pair would be met twice.
        end = ops.where(2 * offset == grid.segments, count // 2, count)

        def pair(at: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, ...]:
            to_near, to_far = _between(
                blocks(_cut(points, at, group)), blocks(_cut(twice, at + ahead, group)), products
            )
            # A sum of more than two terms in a loop is rewritten by TensorFlow's optimizer into a
            # temporary variable, which fails in nested loops.
            near = ops.concatenate([near[group:], near[:group] + to_near], axis=0)
            return at + group, near, ops.concatenate([far[group:], far[:group] + to_far], axis=0)

        far = ops.concatenate([far[grid.lists :], far[: grid.lists]], axis=0)
        state = (0 * offset, near, far)
        return (offset + 1, *run_while(lambda at, *_: at < end, pair, state)[1:])

    state = (ops.ones((), "int32"), sums, ops.zeros_like(sums))
    near, far = run_while(lambda offset, *_: 2 * offset <= grid.segments, at_offset, state)[1:]
    half = grid.segments // 2
    left = (1 - grid.segments % 2) * half
    far = _turned_back(far, (half + left) % grid.segments * grid.lists)
    return _turned_back(near, left * grid.lists) + far


class _Blocks(NamedTuple):
    """Of a group of segments, blocks first: rows, and columns and values, which are columns too."""

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
        new = function(_cut(points, at, size))
        return at + size, ops.concatenate([done[size:], new], axis=0)

    nothing = ops.zeros_like(points[0][..., :1]) + ops.zeros((width,), points[0].dtype)
    return run_while(lambda at, _: at < count, body, (ops.zeros((), "int32"), nothing))[1]


def _within(blocks: _Blocks, products: Products) -> Tensor:
    """Sums over the points of the same segment."""
    count, values = blocks.rows[0].shape[0], blocks.values
    # The diagonal is its own mirror.
    tiles = products(blocks.rows, blocks.columns)
    sums = [_direct(tile, v) for tile, v in zip(tiles, values)]
    half = count // 2
    if count % 2 == 0:
        # Half way round the ring, a pair would be met twice.
        tiles = products([x[:half] for x in blocks.rows], [x[half:] for x in blocks.columns])
        sums = [
            total + ops.concatenate([_direct(tile, v[half:]), _mirrored(tile, v[:half])], axis=0)
            for total, tile, v in zip(sums, tiles, values)
        ]
    if count > 2:
        rows, columns = _sweep(blocks, blocks, products, range(1, (count + 1) // 2), sums)
        sums = [a + b for a, b in zip(rows, columns)]
    return _points(sums)


def _between(near: _Blocks, far: _Blocks, products: Products) -> tuple[Tensor, Tensor]:
    """Sums of near segments over the points of far ones, and of the far over the near."""
    start = [ops.zeros_like(_transposed(v)) for v in far.values]
    rows, columns = _sweep(near, far, products, range(near.rows[0].shape[0]), start)
    return _points(rows), _points(columns)


def _sweep(
    near: _Blocks, far: _Blocks, products: Products, offsets: range, sums: Tensors
) -> tuple[Tensors, Tensors]:
    """Sums over the tiles between each near block and the far one at some offsets on a ring."""
    blocks, split = near.rows[0].shape[0], len(far.columns)
    ring = ops.arange(blocks)
    # Of the ring once more, a slice along the first axis is no copy.
    rings = [_ring(x, offsets.stop - 1) for x in (*far.columns, *far.values)]

    def body(offset: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
        ahead = [ops.slice(x, (offset, 0, 0, 0), (blocks, *ops.shape(x)[1:])) for x in rings]
        tiles = products(near.rows, ahead[:split])
        rows = [_direct(tile, v) for tile, v in zip(tiles, ahead[split:])]
        back = (ring + (blocks - offset)) % blocks
        columns = [
            ops.take(ops.matmul(v, tile), back, axis=0) for tile, v in zip(tiles, near.values)
        ]
        return (offset + 1, *(total + new for total, new in zip(sums, rows + columns)))

    start = ops.zeros((), "int32") + offsets.start
    state = (start, *sums, *(ops.zeros_like(v) for v in near.values))
    sums = run_while(lambda offset, *_: offset < offsets.stop, body, state)[1:]
    return sums[: len(near.values)], [_transposed(v) for v in sums[len(near.values) :]]


def _direct(tiles: Tensor, columns: Tensor) -> Tensor:
    return ops.einsum("abij,abdj->abid", tiles, columns)


def _mirrored(tiles: Tensor, columns: Tensor) -> Tensor:
    return _transposed(ops.matmul(columns, tiles))


def _transposed(blocks: Tensor) -> Tensor:
    return ops.transpose(blocks, (0, 1, 3, 2))


def _ring(x: Tensor, more: int | None = None) -> Tensor:
    return ops.concatenate([x, x[:more]], axis=0)


def _cut(points: Tensors, at: Tensor, size: Tensor | int) -> Tensors:
    return [ops.slice(x, (at, 0, 0), (size, *ops.shape(x)[1:])) for x in points]


def _turned_back(x: Tensor, by: Tensor | int) -> Tensor:
    """What is first comes `by` later."""
    shape = ops.shape(x)
    return ops.slice(_ring(x), (shape[0] - by, 0, 0), shape)


def _points(sums: Tensors) -> Tensor:
    """Blocks of rows, `(blocks, group, points, D)`, as `(group, points, D)`, side by side."""
    x = ops.concatenate(sums, axis=-1)
    if x.shape[0] == 1:
        return x[0]
    x = ops.transpose(x, (1, 0, 2, 3))
    shape = ops.shape(x)
    return ops.reshape(x, (shape[0], shape[1] * shape[2], x.shape[-1]))
