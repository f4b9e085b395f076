"""MATLAB files of version 5 (`save -v6` and `-v7`), element by element.

MathWorks, "MAT-File Format". Nothing is allocated before its size is known to be within a budget,
compressed elements are inflated piece by piece, and objects and functions are passed over.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from typing import Any, BinaryIO

import numpy as np

from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.matlab_struct import MatlabStruct, UnreadValue
from keras_rpe.checkpoints.reading_budget import ReadingBudget

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_STORED |= {12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR, _OPAQUE = 1, 2, 4, 17
_NUMERIC = range(6, 16)
_KINDS = {3: "an object", 5: "a sparse array", 16: "a function", 17: "an object"}
_COMPLEX = 0x0800
_MAX_RANK = 8
_PIECE = 1 << 16


def read_matlab5(
    file: BinaryIO, file_size: int, wanted: Collection[str], budget: ReadingBudget
) -> dict[str, Any]:
    """Read some of the variables of a file.

    Args:
        file: The file.
        file_size: Its size in bytes.
        wanted: Names of the variables; others are passed over, not even inflated.
        budget: What may be read.

    Returns:
        The variables that the file has, as `MatlabStruct` tells; what is not read is an
        `UnreadValue`.

    Raises:
        CheckpointError: If the file is damaged, too large or of another kind.
    """
    file.seek(0)
    header = file.read(_HEADER)
    if len(header) < _HEADER or header[126:128] not in (b"IM", b"MI"):
        raise CheckpointError("it has no header of a MATLAB file of version 5 or 7.3")
    order = "<" if header[126:128] == b"IM" else ">"
    variables = {}
    start = _HEADER
    while file_size - start >= 8:
        budget.take_values(1)
        file.seek(start)
        outer = _Elements(file, file_size - start, order, budget)
        kind, size, _ = outer.tag()
        start += 8 + size
        if start > file_size:
            raise CheckpointError("it is truncated")
        elements = _Elements(file, size, order, budget, compressed=kind == _COMPRESSED)
        if kind == _COMPRESSED:
            kind, size, _ = elements.tag()
        if kind != _MATRIX:
            raise CheckpointError(f"it has an element of the unknown type {kind}")
        if size:
            name, value = elements.matrix(size, 0, wanted)
            if name in wanted:
                variables[name] = value
    return variables


class _Elements:
    """The elements in a part of a file, which may be compressed, in their order."""

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        order: str,
        budget: ReadingBudget,
        compressed: bool = False,
    ) -> None:
        self._file = file
        self._left = size
        self._order = order
        self._budget = budget
        self._inflater = zlib.decompressobj() if compressed else None
        self._position = 0

    def tag(self) -> tuple[int, int, bytes | None]:
        """Type and size of the next element, and its data where the tag includes them."""
        raw = self._read(8)
        first, second = np.frombuffer(raw, f"{self._order}u4").tolist()
        if first >> 16:
            if first >> 16 > 4:
                raise CheckpointError("it has a damaged element")
            return first & 0xFFFF, first >> 16, bytes(raw[4 : 4 + (first >> 16)])
        return first, second, None

    def matrix(self, size: int, depth: int, wanted: Collection[str] | None = None) -> Any:
        """Name and value of an array; the value of one with no wanted name is not read."""
        self._budget.check_depth(depth)
        if size == 0:
            return "", np.zeros((0, 0), "float32")
        end = self._position + size
        flags = int(np.frombuffer(self._data()[1], f"{self._order}u4")[0])
        class_number = flags & 0xFF
        dims = [] if class_number == _OPAQUE else self._integers()
        name = bytes(self._data()[1]).decode("latin-1")
        value: Any = UnreadValue(_KINDS.get(class_number, f"of the class {class_number}"))
        if wanted is not None and name not in wanted:
            return name, value
        if flags & _COMPLEX:
            value = UnreadValue("a complex array")
        elif class_number in (_CELL, _STRUCT, _CHAR) or class_number in _NUMERIC:
            if not 2 <= len(dims) <= _MAX_RANK or min(dims) < 0:
                raise CheckpointError(f"it has an array of the size {dims[: _MAX_RANK + 1]}")
            value = self._body(class_number, dims, depth)
        if self._position > end:
            raise CheckpointError("it has a damaged element")
        self._skip(end - self._position)
        return name, value

    def _body(self, class_number: int, dims: list[int], depth: int) -> Any:
        count = math.prod(dims)
        if class_number == _CELL:
            self._budget.take_values(count)
            return [self._nested(depth) for _ in range(count)]
        if class_number == _STRUCT:
            return self._struct(count, depth)
        kind, data = self._data()
        if class_number == _CHAR:
            if kind not in _TEXTS:
                raise CheckpointError(f"it has a text of the unknown type {kind}")
            encoding = _TEXTS[kind]
            if not encoding.endswith(("1", "8")):
                encoding += "-le" if self._order == "<" else "-be"
            return bytes(data).decode(encoding, "replace")
        if kind not in _STORED:
            raise CheckpointError(f"it has numbers of the unknown type {kind}")
        dtype = np.dtype(self._order + _STORED[kind])
        if len(data) != count * dtype.itemsize:
            raise CheckpointError(f"it has {len(data)} bytes for an array of the size {dims}")
        return np.frombuffer(data, dtype).reshape(dims, order="F")

    def _struct(self, count: int, depth: int) -> MatlabStruct:
        lengths = self._integers()
        names = bytes(self._data()[1])
        length = lengths[0] if lengths else 0
        if length < 1 or len(names) % length:
            raise CheckpointError("it has a struct with damaged names of its fields")
        keys = [
            names[i : i + length].split(b"\0")[0].decode("latin-1")
            for i in range(0, len(names), length)
        ]
        if len(set(keys)) != len(keys):
            raise CheckpointError("it has a struct with two fields of one name")
        self._budget.take_values(count * max(len(keys), 1))
        fields: dict[str, list[Any]] = {key: [] for key in keys}
        for _ in range(count if keys else 0):
            for key in keys:
                fields[key].append(self._nested(depth))
        return MatlabStruct(count if keys else 0, fields)

    def _nested(self, depth: int) -> Any:
        kind, size, inline = self.tag()
        if kind != _MATRIX or inline is not None:
            raise CheckpointError(f"it has an element of the type {kind} where an array belongs")
        return self.matrix(size, depth + 1)[1]

    def _integers(self) -> list[int]:
        data = self._data()[1]
        if len(data) % 4 or len(data) > 4 * 64:
            raise CheckpointError("it has a damaged element")
        return np.frombuffer(data, f"{self._order}i4").tolist()

    def _data(self) -> tuple[int, bytes | bytearray]:
        """Type and data of the next element, which holds no others."""
        kind, size, inline = self.tag()
        if inline is not None:
            return kind, inline
        self._budget.take_bytes(size)
        data = self._read(size)
        # Writers pad elements to eight bytes, and some leave that out at the end.
        self._skip(min(-size % 8, self._left) if self._inflater is None else -size % 8)
        return kind, data

    def _skip(self, count: int) -> None:
        if self._inflater is not None:
            self._budget.take_bytes(count)
        while count > 0:
            count -= len(self._read(min(count, _PIECE)))

    def _read(self, count: int) -> bytes | bytearray:
        """Exactly so many bytes, as far as they exist: memory grows with what there is."""
        if self._inflater is None:
            if count > self._left:
                raise CheckpointError("it is truncated or damaged")
            data: bytes | bytearray = self._file.read(count)
            self._left -= len(data)
        else:
            data = bytearray()
            while len(data) < count and not self._inflater.eof:
                raw = self._inflater.unconsumed_tail
                if not raw:
                    raw = self._file.read(min(_PIECE, self._left))
                    self._left -= len(raw)
                piece = self._inflater.decompress(raw, min(count - len(data), _PIECE))
                if not raw and not piece:
                    break
                data += piece
        if len(data) != count:
            raise CheckpointError("it is truncated or damaged")
        self._position += count
        return data
