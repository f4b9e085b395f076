"""A dict of a pickle, as it stands in the file."""

from __future__ import annotations

from typing import Any


class PickledDict:
    """A dict of a pickle as its flat list of keys and values; nothing in it is hashed.

    Example:
        >>> from keras_rpe.checkpoints.pickled_dict import PickledDict
        >>> pickled = PickledDict()
        >>> pickled.items += ["a", 1, "b", 2]
        >>> pickled.get("b"), pickled.pairs()
        (2, [('a', 1), ('b', 2)])
    """

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: list[Any] = []

    def pairs(self) -> list[tuple[Any, Any]]:
        """The keys and values, in the order of the file."""
        return list(zip(self.items[::2], self.items[1::2]))

    def get(self, name: str) -> Any:
        """The last value of a text key, or `None`."""
        found = None
        for key, value in self.pairs():
            if isinstance(key, str) and key == name:
                found = value
        return found
