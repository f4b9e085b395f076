"""How lists of points are cut for the products between all points of a list."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from keras_rpe.ops.padding import missing_to_multiple

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
        >>> from keras_rpe.ops.segment_grid import SegmentGrid
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
