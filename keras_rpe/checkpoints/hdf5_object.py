"""What the header of an HDF5 object says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from keras_rpe.checkpoints.checkpoint_error import CheckpointError

_MAX_RANK = 8


@dataclass
class Hdf5Object:
    """A group or a data set.

    Attributes:
        attributes: Texts and whole numbers that belong to it, by name; others are left out.
        group: Addresses of the tree and of the heap of a group; `None` for a data set.
        shape: Shape of a data set, slowest dimension first.
        dtype: Type of its elements; references are unsigned integers of eight bytes.
        is_reference: Whether its elements are references to objects.
        layout: Message on where its data lie.
        filters: Numbers of the filters that its chunks went through, in that order.
    """

    attributes: dict[str, str | int] = field(default_factory=dict)
    group: tuple[int, int] | None = None
    shape: tuple[int, ...] | None = None
    dtype: np.dtype | None = None
    is_reference: bool = False
    layout: bytes = b""
    filters: list[int] = field(default_factory=list)

    def add_message(self, kind: int, flags: int, data: bytes) -> None:
        """Take in a message of the header.

        Raises:
            CheckpointError: If it is damaged, or of a kind that MATLAB does not write.
        """
        if kind in (0x01, 0x03, 0x08, 0x0B, 0x11) and flags & 2:
            raise CheckpointError("it has a shared header, which MATLAB does not write")
        if kind == 0x01:
            self.shape = shape_of(data)
        elif kind == 0x03:
            self.dtype, self.is_reference = dtype_of(data)
        elif kind in (0x02, 0x06):
            raise CheckpointError("it has links of a kind that MATLAB does not write")
        elif kind == 0x07:
            raise CheckpointError("it keeps data in other files")
        elif kind == 0x08:
            self.layout = data
        elif kind == 0x0B:
            self.filters = _filters(data)
        elif kind == 0x0C:
            self._add_attribute(data)
        elif kind == 0x11:
            self.group = number(data, 0, 8), number(data, 8, 8)

    def _add_attribute(self, data: bytes) -> None:
        version = number(data, 0, 1)
        if version not in (1, 2, 3) or (version > 1 and number(data, 1, 1)):
            return
        start = 9 if version == 3 else 8
        parts = []
        for position in (2, 4, 6):
            size = number(data, position, 2)
            parts.append(data[start : start + size])
            start += size + (-size % 8 if version == 1 else 0)
        name = parts[0].split(b"\0")[0].decode("utf-8", "replace")
        if number(parts[1], 0, 1) & 0x0F == 3:
            value: str | int = data[start:].split(b"\0")[0].decode("utf-8", "replace")
        elif number(parts[1], 0, 1) & 0x0F == 0 and math.prod(shape_of(parts[2])) == 1:
            value = number(data, start, min(number(parts[1], 4, 4), 8))
        else:
            return
        self.attributes[name] = value


def number(data: bytes, position: int, size: int) -> int:
    """The unsigned integer of `size` bytes at a position.

    Raises:
        CheckpointError: If the data end before.

    Example:
        >>> from keras_rpe.checkpoints.hdf5_object import number
        >>> number(bytes([0, 2, 1]), 1, 2)
        258
    """
    part = data[position : position + size]
    if len(part) != size:
        raise CheckpointError("it is truncated or damaged")
    return int.from_bytes(part, "little")


def shape_of(data: bytes) -> tuple[int, ...]:
    """The shape that a message on a data space declares.

    Raises:
        CheckpointError: If it is damaged.
    """
    version, rank = number(data, 0, 1), number(data, 1, 1)
    if version not in (1, 2) or rank > _MAX_RANK:
        raise CheckpointError("it has an array of a damaged shape")
    start = 8 if version == 1 else 4
    return tuple(number(data, start + 8 * i, 8) for i in range(rank))


def dtype_of(data: bytes) -> tuple[np.dtype | None, bool]:
    """The type that a message declares, and whether it is a reference; `None` for unknown ones.

    Raises:
        CheckpointError: If it is damaged.
    """
    kind, flags, size = number(data, 0, 1) & 0x0F, number(data, 1, 1), number(data, 4, 4)
    order = ">" if flags & 1 else "<"
    if kind == 0 and size in (1, 2, 4, 8):
        return np.dtype(f"{order}{'i' if flags & 8 else 'u'}{size}"), False
    if kind == 1 and size in (4, 8):
        return np.dtype(f"{order}f{size}"), False
    if kind == 7 and size == 8 and flags & 0x0F == 0:
        return np.dtype("<u8"), True
    return None, False


def _filters(data: bytes) -> list[int]:
    version, count = number(data, 0, 1), number(data, 1, 1)
    if version not in (1, 2) or count > 4:
        raise CheckpointError("it has data compressed in an unknown way")
    position = 8 if version == 1 else 2
    filters = []
    for _ in range(count):
        kind = number(data, position, 2)
        named = version == 1 or kind >= 256
        length = number(data, position + 2, 2) if named else 0
        position += 4 if named else 2
        values = number(data, position + 2, 2)
        position += 4 + length + (-length % 8 if version == 1 else 0) + 4 * values
        position += 4 if version == 1 and values % 2 else 0
        filters.append(kind)
    return filters
