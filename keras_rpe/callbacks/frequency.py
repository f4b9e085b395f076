"""How often a callback does its work."""

from __future__ import annotations

import numbers
from typing import Any


def checked_frequency(frequency: Any) -> int:
    """Check the number of epochs from one time to the next.

    Args:
        frequency: The number.

    Returns:
        The same as an `int`.

    Raises:
        ValueError: If it is no integer of at least 1.

    Example:
        >>> from keras_rpe.callbacks.frequency import checked_frequency
        >>> checked_frequency(2)
        2
    """
    valid = isinstance(frequency, numbers.Integral) and not isinstance(frequency, bool)
    if not valid or frequency < 1:
        raise ValueError(
            f"`frequency` must be an integer of at least 1. Received: frequency={frequency!r}"
        )
    return int(frequency)
