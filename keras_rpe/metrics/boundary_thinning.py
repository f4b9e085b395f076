"""Thinning of a binary map to lines one pixel wide."""

from __future__ import annotations

import numpy as np

# Steps (row, column) to the eight neighbours: east, then counter-clockwise.
_NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def _removable() -> tuple[np.ndarray, np.ndarray]:
    """Whether each of the 256 neighbourhoods lets a pixel go, in the two half-steps."""
    x = [(np.arange(256) >> bit & 1).astype(bool) for bit in range(8)]
    crossings = sum((~x[i] & (x[i + 1] | x[(i + 2) % 8])).astype(int) for i in (0, 2, 4, 6))
    first = sum((x[i] | x[i + 1]).astype(int) for i in (0, 2, 4, 6))
    second = sum((x[i] | x[(i + 1) % 8]).astype(int) for i in (1, 3, 5, 7))
    fewest = np.minimum(first, second)
    simple = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    south_east = simple & ~((x[1] | x[2] | ~x[7]) & x[0])
    north_west = simple & ~((x[5] | x[6] | ~x[3]) & x[4])
    return south_east, north_west


_REMOVABLE = _removable()


def thin_to_lines(mask: np.ndarray) -> np.ndarray:
    """Thin a binary map until nothing more can go; what is connected stays so.

    The parallel algorithm of Guo and Hall, "Parallel thinning with two-subiteration algorithms",
    Communications of the ACM 32 (1989). A pixel is looked at again only after one of its
    neighbours went, so that the cost grows with the pixels, not with the widest region.

    Args:
        mask: boolean array (height, width).

    Returns:
        Boolean array (height, width), a subset of `mask`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics.boundary_thinning import thin_to_lines
        >>> thin_to_lines(np.ones((3, 5), bool)).astype(int)
        array([[0, 0, 0, 0, 0],
               [0, 1, 1, 1, 0],
               [0, 0, 0, 0, 0]])
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    flat = padded.ravel()
    steps = np.array([row * padded.shape[1] + column for row, column in _NEIGHBOURS])
    everything = np.flatnonzero(flat)
    waiting = [everything, everything]  # what the two half-steps have to look at
    turn = 0
    while waiting[0].size or waiting[1].size:
        pixels = waiting[turn]
        code = np.zeros(pixels.size, np.uint8)
        for bit, step in enumerate(steps):
            code |= flat[pixels + step] << np.uint8(bit)
        gone = pixels[_REMOVABLE[turn][code]]
        flat[gone] = 0
        touched = (gone[:, None] + steps).ravel()
        both = np.concatenate((waiting[1 - turn], touched))
        for half, candidates in ((turn, touched), (1 - turn, both)):
            waiting[half] = np.unique(candidates[flat[candidates] > 0])
        turn = 1 - turn
    return padded[1:-1, 1:-1].astype(bool)
