"""Thin lines down to one pixel, in NumPy."""

from __future__ import annotations

import numpy as np


def thin_lines(marks: np.ndarray) -> np.ndarray:
    """Thin lines to a width of one pixel without breaking them.

    Guo & Hall, "Parallel Thinning with Two-Subiteration Algorithms", CACM 1989, with their first
    set of conditions, until nothing changes; equal to `skimage.morphology.thin`. Only pixels that
    are set take time, so that drawings of few lines are done several times faster.

    Args:
        marks: bool (N, H, W), N independent drawings.

    Returns:
        bool (N, H, W).

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.boundary_thinning import thin_lines
        >>> thin_lines(np.ones((1, 3, 6), bool))[0].astype(int).tolist()
        [[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]
    """
    padded = np.pad(marks.astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    row = padded.shape[2]
    # Around a pixel, from its right against the clock.
    steps = (1, 1 - row, -row, -row - 1, -1, row - 1, row, row + 1)
    flat = padded.reshape(-1)
    places = np.flatnonzero(flat)
    while True:
        before = len(places)
        for removable in _REMOVABLE:
            code = np.zeros(len(places), np.uint8)
            for bit, step in enumerate(steps):
                code |= flat[places + step] << np.uint8(bit)
            removed = removable[code]
            flat[places[removed]] = 0
            places = places[~removed]
        if len(places) == before:
            return padded[:, 1:-1, 1:-1].astype(bool)


def _removable() -> tuple[np.ndarray, np.ndarray]:
    """For the two steps, whether a pixel goes, by the bits of its eight neighbours."""
    codes = np.arange(256)
    x = [codes >> bit & 1 for bit in range(8)]
    pieces = sum((1 - x[i]) & (x[i + 1] | x[(i + 2) % 8]) for i in (0, 2, 4, 6))
    one = sum(x[i] | x[i + 1] for i in (0, 2, 4, 6))
    other = sum(x[i + 1] | x[(i + 2) % 8] for i in (0, 2, 4, 6))
    fewer = np.minimum(one, other)
    simple = (pieces == 1) & (fewer >= 2) & (fewer <= 3)
    first = ((x[1] | x[2] | (1 - x[7])) & x[0]) == 0
    second = ((x[5] | x[6] | (1 - x[3])) & x[4]) == 0
    return simple & first, simple & second


_REMOVABLE = _removable()
