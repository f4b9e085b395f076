"""Values of MATLAB files as Python ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class MatlabStruct:
    """A MATLAB struct array: numbers are arrays, texts `str`, cells lists, and structs this class.

    Attributes:
        size: Elements of the array.
        fields: Of each field, the values of all elements in MATLAB's order.

    Example:
        >>> from keras_rpe.checkpoints.matlab_struct import MatlabStruct
        >>> array = MatlabStruct(2, {"name": ["a", "b"]})
        >>> [element["name"] for element in array.elements()]
        ['a', 'b']
    """

    size: int
    fields: dict[str, list[Any]] = field(default_factory=dict)

    def elements(self) -> Iterator[dict[str, Any]]:
        """The elements, each a dictionary of its fields."""
        for index in range(self.size):
            yield {name: values[index] for name, values in self.fields.items()}

    def get(self, name: str) -> Any:
        """The field of a struct of one element; `None` where there is none."""
        values = self.fields.get(name, [])
        return values[0] if self.size == 1 and values else None


@dataclass(frozen=True)
class UnreadValue:
    """A value that is not read: an object, a function, or of a kind that no weights have.

    Attributes:
        kind: What it is, in words.
    """

    kind: str
