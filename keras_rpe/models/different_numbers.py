"""Arguments that are several numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def different_numbers(
    name: str, values: Any, wanted: str, fits: Callable[[float], bool]
) -> tuple[float, ...]:
    """Check an argument that takes some different numbers.

    Args:
        name: Name of the argument.
        values: What was given.
        wanted: What an error says of a number that fits.
        fits: Whether a number does.

    Returns:
        The numbers.

    Raises:
        ValueError: If they are no numbers, none at all, two are equal, or one does not fit.

    Example:
        >>> from keras_rpe.models.different_numbers import different_numbers
        >>> different_numbers("sizes", [1, 2.5], "positive", lambda x: x > 0)
        (1.0, 2.5)
    """
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(map(fits, numbers)) or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"`{name}` must be at least one number, all different and {wanted}. "
            f"Received: {name}={values!r}"
        )
    return numbers
