"""A function that a pickle may call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PickledCall:
    """A function that a pickle may call: `make` checks the arguments and builds a plain record.

    Example:
        >>> from keras_rpe.checkpoints.pickled_call import PickledCall
        >>> PickledCall(lambda arguments: len(arguments)).make(("a", "b"))
        2
    """

    make: Callable[[tuple[Any, ...]], Any] = field(repr=False)
