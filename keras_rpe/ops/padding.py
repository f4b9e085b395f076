"""How much is missing to a whole multiple."""

from __future__ import annotations

from typing import Any

Tensor = Any


def missing_to_multiple(length: Tensor | int, multiple: int) -> Tensor | int:
    """Give what must be added to a length to make it a multiple.

    Of no negative number on the way: some runtimes round those to the other side, or give them
    remainders below zero.

    Args:
        length: Not negative, a Python integer or a scalar integer tensor.
        multiple: At least 1.

    Returns:
        In [0, multiple), of the type of `length`.

    Example:
        >>> from keras_rpe.ops.padding import missing_to_multiple
        >>> [missing_to_multiple(length, 4) for length in (0, 1, 4, 7)]
        [0, 3, 0, 1]
    """
    return (length + multiple - 1) // multiple * multiple - length
