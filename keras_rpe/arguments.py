"""The checks of arguments, in one spelling: what is accepted, and what was received."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any


def check_integer(name: str, value: Any, at_least: int = 1, at_most: int | None = None) -> int:
    """Check an argument that takes an integer, NumPy's too, but not a boolean, and give an `int`.

    Example:
        >>> from keras_rpe.arguments import check_integer
        >>> check_integer("loops", 0, at_most=9)
        Traceback (most recent call last):
        ...
        ValueError: `loops` must be an integer from 1 to 9. Received: loops=0
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < at_least or (at_most is not None and value > at_most):
        accepted = (
            f"from {at_least} to {at_most}" if at_most is not None else f"of {at_least} or more"
        )
        raise ValueError(f"`{name}` must be an integer {accepted}. Received: {name}={value!r}")
    return int(value)


def check_number(name: str, value: Any, interval: str = "(0, inf)") -> float:
    """Check an argument that takes a finite number, not a boolean, and give it as a `float`.

    A square bracket of the interval includes its bound.

    Example:
        >>> from keras_rpe.arguments import check_number
        >>> check_number("margin", 1.0, "[0, 1)")
        Traceback (most recent call last):
        ...
        ValueError: `margin` must be a number in [0, 1). Received: margin=1.0
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if (
        not is_number
        or not math.isfinite(value)
        or not (low <= value if interval[0] == "[" else low < value)
        or not (value <= high if interval[-1] == "]" else value < high)
    ):
        raise ValueError(f"`{name}` must be a number in {interval}. Received: {name}={value!r}")
    return float(value)


def check_numbers(name: str, values: Any, interval: str = "(0, inf)") -> tuple[float, ...]:
    """Check an argument that takes one or more numbers, all different, and give them.

    Example:
        >>> from keras_rpe.arguments import check_numbers
        >>> check_numbers("sizes", [1, 2.5])
        (1.0, 2.5)
    """
    try:
        checked = tuple(check_number(name, value, interval) for value in values)
    except (TypeError, ValueError):
        checked = ()
    if not checked or len(set(checked)) < len(checked):
        raise ValueError(
            f"`{name}` must be one or more different numbers in {interval}. "
            f"Received: {name}={values!r}"
        )
    return checked


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Check an argument that takes one of several values.

    Example:
        >>> from keras_rpe.arguments import check_choice
        >>> check_choice("mode", "mean", ["min", "max"])
        Traceback (most recent call last):
        ...
        ValueError: `mode` must be 'min' or 'max'. Received: mode='mean'
    """
    accepted: Sequence[Any] = list(choices)
    if not any(
        value is choice or (type(value) is type(choice) and value == choice) for choice in accepted
    ):
        *others, last = map(repr, accepted)
        text = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"`{name}` must be {text}. Received: {name}={value!r}")
