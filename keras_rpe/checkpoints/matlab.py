"""MATLAB files of versions 5 (`save -v6` and `-v7`) and 7.3, of which nothing is executed."""

# Version 5 is read here and not by scipy.io.loadmat: that one takes type numbers from the file as
# indices into memory and nests without limit, so that one damaged file in a hundred ends the
# process with a segmentation fault, which no `except` can turn into a message.

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from keras_rpe.checkpoints.report import DAMAGE, CheckpointError

MAX_BYTES = 512 << 20
MAX_VALUES = 200_000
MAX_DEPTH = 24
# Weights hardly shrink when they are compressed; zeros shrink a thousandfold.
_MAX_EXPANSION = 20
_FREE_BYTES = 64 << 20

_HEADER = 128
_NAME_WITHIN = 4096
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}
_STORED |= {12: "<i8", 13: "<u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
_CELL, _STRUCT, _CHAR, _OPAQUE = 1, 2, 4, 17
_NUMERIC = range(6, 16)
_COMPLEX = 0x0800
_MAX_RANK = 8

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512
_DEFLATE, _SHUFFLE, _CHECKSUM = 1, 2, 3
_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_NUMERIC_CLASSES = ("double", "single", "logical", *_INTEGERS)


def read_matlab(
    path: str | os.PathLike[str], variables: Collection[str], max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Read variables of a MATLAB file of version 5 (`save -v6`, `-v7`) or 7.3.

    Nothing of the file is executed, links to other files are refused, and sizes are checked before
    anything is allocated.

    Args:
        path: Path of the file.
        variables: Names of the variables to read; the others are not even decompressed.
        max_bytes: The most bytes of data that are read. Twenty times the size of the file, and
            64 MiB, is a limit too.

    Returns:
        The variables that the file has. Numbers are arrays of MATLAB's shape, texts `str`, cells
        lists in MATLAB's order, a struct a dict, and a struct array of any other size than 1 a list
        of dicts. What has no such meaning (objects, functions, sparse and complex arrays) is
        `None`.

    Raises:
        CheckpointError: If the file is not a MATLAB file, is damaged, or is too large.
    """
    path = Path(path)
    try:
        # Anything else, like a pipe, could block.
        if not path.is_file():
            raise CheckpointError("there is no such file")
        size = path.stat().st_size
        if not size:
            raise CheckpointError("it is empty (0 bytes)")
        limits = _Limits(min(max_bytes, _FREE_BYTES + _MAX_EXPANSION * size))
        with path.open("rb") as file:
            start = file.read(_USER_BLOCK + len(_HDF5_SIGNATURE))
            if _HDF5_SIGNATURE not in (start[: len(_HDF5_SIGNATURE)], start[_USER_BLOCK:]):
                return _read_version5(file, size, start[:_HEADER], variables, limits)
        with h5py.File(path, "r") as hdf5:
            reader = _Version73(hdf5, limits)
            return {n: reader.read(reader.member(hdf5, n)) for n in variables if n in hdf5}
    except DAMAGE as error:
        reason = str(error) if isinstance(error, CheckpointError) else "it is damaged"
        raise CheckpointError(f"{path} cannot be read as a MATLAB file: {reason}.") from None


class _Limits:
    """What may still be taken from the file."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = self.bytes_left = max_bytes
        self.values_left = MAX_VALUES

    def take_bytes(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise CheckpointError(
                f"it declares more than the {self.max_bytes >> 20} MiB of data accepted from a "
                "file of its size"
            )

    def take_values(self, count: int) -> None:
        self.values_left -= count
        if self.values_left < 0:
            raise CheckpointError(f"it declares more than the {MAX_VALUES} values accepted")

    def check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise CheckpointError(f"its values are nested deeper than the {MAX_DEPTH} accepted")


def _read_version5(
    file: BinaryIO, size: int, header: bytes, variables: Collection[str], limits: _Limits
) -> dict[str, Any]:
    if header[126:] != b"IM":  # The byte order, which every MATLAB of today writes.
        raise CheckpointError("it has no header of a MATLAB file of version 5 or 7.3")
    reader = _Version5(limits)
    found: dict[str, Any] = {}
    at = _HEADER
    while at + 8 <= size:
        limits.take_values(1)
        file.seek(at)
        kind, length = struct.unpack("<2I", file.read(8))
        at += 8 + length
        if at > size:
            raise CheckpointError("it is truncated")
        if kind == _COMPRESSED:
            raw = file.read(length)
            data = zlib.decompressobj().decompress(raw, 8 + _NAME_WITHIN)
            kind, length = struct.unpack_from("<2I", data)
            start = data[8:]
        else:
            raw, start = None, file.read(min(length, _NAME_WITHIN))
        if kind != _MATRIX:
            raise CheckpointError(f"it has an element of the unknown type {kind}")
        name = reader.header(reader.elements(memoryview(start)))[2] if length else ""
        if name not in variables:
            continue
        limits.take_bytes(length)
        if raw is None:
            data = start + file.read(length - len(start))
        else:
            data = zlib.decompressobj().decompress(raw, 8 + length)[8:]
        if len(data) != length:
            raise CheckpointError("it is truncated or damaged")
        found[name] = reader.value(memoryview(data), 0)
    return found


class _Version5:
    """MathWorks, "MAT-File Format": arrays are elements that hold elements."""

    def __init__(self, limits: _Limits) -> None:
        self._limits = limits

    def elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        at = 0
        while at + 8 <= len(data):
            kind, size = struct.unpack_from("<2I", data, at)
            start, end = at + 8, at + 8 + size
            at = end + -size % 8
            if kind >> 16:  # Up to four bytes of data are in the tag itself.
                kind, size = kind & 0xFFFF, kind >> 16
                start, end, at = start - 4, start - 4 + size, start
                if size > 4:
                    raise CheckpointError("it has a damaged element")
            if end > len(data):
                raise CheckpointError("it is truncated or damaged")
            yield kind, data[start:end]

    def header(self, parts: Iterator[tuple[int, memoryview]]) -> tuple[int, list[int], str]:
        """Flags, sizes and name of an array."""
        flags = struct.unpack_from("<I", next(parts)[1])[0]
        # Objects have no sizes.
        dims = [] if flags & 0xFF == _OPAQUE else self._integers(next(parts)[1])
        return flags, dims, bytes(next(parts)[1]).decode("latin-1")

    def value(self, data: memoryview, depth: int) -> Any:
        self._limits.check_depth(depth)
        if not data:
            return np.zeros((0, 0), "float32")
        parts = self.elements(data)
        flags, dims, _ = self.header(parts)
        class_number, count = flags & 0xFF, math.prod(dims)
        if flags & _COMPLEX or class_number not in (_CELL, _STRUCT, _CHAR, *_NUMERIC):
            return None
        if not 2 <= len(dims) <= _MAX_RANK or min(dims) < 0:
            raise CheckpointError(f"it has an array of the size {dims[: _MAX_RANK + 1]}")
        if class_number == _CELL:
            self._limits.take_values(count)
            return [self._nested(parts, depth) for _ in range(count)]
        if class_number == _STRUCT:
            return self._struct(parts, count, depth)
        kind, content = next(parts)
        if class_number == _CHAR:
            return bytes(content).decode(_TEXTS[kind], "replace")
        dtype = np.dtype(_STORED[kind])
        if len(content) != count * dtype.itemsize:
            raise CheckpointError(f"it has {len(content)} bytes for an array of the size {dims}")
        return np.frombuffer(content, dtype).reshape(dims, order="F")

    def _struct(self, parts: Iterator[tuple[int, memoryview]], count: int, depth: int) -> Any:
        length = self._integers(next(parts)[1])[0]
        names = bytes(next(parts)[1])
        if length < 1 or len(names) % length:
            raise CheckpointError("it has a struct with damaged names of its fields")
        starts = range(0, len(names), length)
        keys = [names[i : i + length].split(b"\0")[0].decode("latin-1") for i in starts]
        if len(set(keys)) != len(keys):
            raise CheckpointError("it has a struct with two fields of one name")
        self._limits.take_values(count * max(len(keys), 1))
        rows = [{key: self._nested(parts, depth) for key in keys} for _ in range(count)]
        return rows[0] if count == 1 else rows

    def _nested(self, parts: Iterator[tuple[int, memoryview]], depth: int) -> Any:
        kind, data = next(parts)
        if kind != _MATRIX:
            raise CheckpointError(f"it has an element of the type {kind} where an array belongs")
        return self.value(data, depth + 1)

    def _integers(self, data: memoryview) -> list[int]:
        return np.frombuffer(data, "<i4").tolist()


class _Version73:
    """HDF5 whose dimensions are reversed; the attribute `MATLAB_class` tells what a value is."""

    def __init__(self, file: h5py.File, limits: _Limits) -> None:
        self._file = file
        self._limits = limits
        self._known: dict[int, Any] = {}

    def member(self, group: h5py.Group, name: str) -> Any:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise CheckpointError("it has links of a kind that MATLAB does not write")
        return group[name]

    def read(self, item: Any, above: tuple[int, ...] = ()) -> Any:
        """The value of an object, which is part of those at the addresses above."""
        self._limits.check_depth(len(above))
        address = h5py.h5o.get_info(item.id).addr
        if address in above:
            raise CheckpointError("it has a value that is part of itself")
        # Cells that refer to one another many times over would otherwise take forever.
        if address not in self._known:
            self._limits.take_values(1)
            self._known[address] = self._value(item, (*above, address))
        return self._known[address]

    def _value(self, item: Any, above: tuple[int, ...]) -> Any:
        class_name = np.bytes_(item.attrs.get("MATLAB_class", b"")).decode()
        if "MATLAB_object_decode" in item.attrs or "MATLAB_sparse" in item.attrs:
            return None
        if isinstance(item, h5py.Group):
            return self._struct(item, above) if class_name in ("", "struct") else None
        if not isinstance(item, h5py.Dataset):
            return None
        if item.attrs.get("MATLAB_empty"):
            empty = {"cell": [], "char": "", "struct": []}
            return empty.get(class_name, np.zeros((0, 0), "float32"))
        if class_name == "cell" and _holds_references(item):
            return self._referenced(item, above)
        if class_name == "char" and item.dtype == np.dtype("<u2"):
            return self._array(item).tobytes().decode("utf-16-le", "replace")
        if class_name in _NUMERIC_CLASSES and item.dtype.kind in "iuf":
            return self._array(item).T
        return None

    def _struct(self, group: h5py.Group, above: tuple[int, ...]) -> Any:
        """A struct has its fields as members; those of a struct array hold references."""
        items = {name: self.member(group, name) for name in group}
        if items and all(
            _holds_references(item) and "MATLAB_class" not in item.attrs for item in items.values()
        ):
            fields = {name: self._referenced(item, above) for name, item in items.items()}
            if len({len(values) for values in fields.values()}) != 1:
                raise CheckpointError("it has a struct with fields of several sizes")
            rows = [dict(zip(fields, values)) for values in zip(*fields.values())]
            return rows[0] if len(rows) == 1 else rows
        return {name: self.read(item, above) for name, item in items.items()}

    def _referenced(self, item: h5py.Dataset, above: tuple[int, ...]) -> list[Any]:
        self._limits.take_values(item.size)
        references = self._array(item).ravel()
        return [self.read(self._file[reference], above) for reference in references]

    def _array(self, item: h5py.Dataset) -> np.ndarray:
        """The values of a data set, slowest dimension first."""
        if item.is_virtual or item.external:
            raise CheckpointError("it keeps data in other files")
        self._limits.take_bytes(item.size * item.dtype.itemsize)
        if item.size and not item.id.get_storage_size():
            raise CheckpointError("it has an array without data")
        if item.size and item.chunks:
            self._check_chunks(item, item.chunks)
        return np.asarray(item[()])

    def _check_chunks(self, item: h5py.Dataset, shape: tuple[int, ...]) -> None:
        # HDF5 itself inflates a chunk to whatever size it has, and fills missing ones with zeros.
        settings = item.id.get_create_plist()
        filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
        if len(set(filters)) < len(filters) or set(filters) - {_DEFLATE, _SHUFFLE, _CHECKSUM}:
            raise CheckpointError("it has data compressed in an unknown way")
        size = math.prod(shape) * item.dtype.itemsize
        self._limits.take_bytes(size)
        starts: list[tuple[int, ...]] = []
        item.id.chunk_iter(lambda chunk: starts.append(chunk.chunk_offset))
        self._limits.take_values(len(starts))
        if len(starts) != math.prod(-(-n // c) for n, c in zip(item.shape, shape)):
            raise CheckpointError("it has an array without data")
        for start in starts if _DEFLATE in filters else ():
            mask, data = item.id.read_direct_chunk(start)
            if mask >> filters.index(_DEFLATE) & 1:
                continue
            if len(zlib.decompressobj().decompress(data, size + 5)) > size + 4:
                raise CheckpointError("it has a damaged piece of data")


def _holds_references(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype == h5py.ref_dtype
