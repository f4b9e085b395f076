"""Whole numbers that pictures take, checked."""

from __future__ import annotations

from typing import Any


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Check an argument that is a whole number.

    Args:
        name: Name of the argument.
        value: Its value.
        low: The least that it may be.
        high: The most that it may be; `None`: there is no such.

    Raises:
        ValueError: If it is no `int`, or out of this range.

    Example:
        >>> from keras_rpe.visualization.integer_argument import check_integer
        >>> check_integer("seed", -1, 0)
        Traceback (most recent call last):
        ...
        ValueError: `seed` must be an integer of at least 0. Received: seed=-1
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        accepted = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"`{name}` must be an integer {accepted}. Received: {name}={value!r}")
