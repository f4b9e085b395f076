"""The part of HDF5 that MATLAB writes, read without the HDF5 library.

The HDF Group, "HDF5 File Format Specification", versions 0 and 1 of the superblock with groups as
symbol tables. The library itself follows links to other files and can be crashed by damaged ones;
here both are refused, as is all that MATLAB does not write.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.hdf5_object import Hdf5Object, number
from keras_rpe.checkpoints.hdf5_storage import Hdf5Storage, storage_of
from keras_rpe.checkpoints.reading_budget import ReadingBudget

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (512, 0)
_UNDEFINED = 2**64 - 1
_MAX_HEADER = 1 << 20
_MAX_TREE_DEPTH = 8
_MAX_CHUNK = 128 * 2**20
_DEFLATE, _SHUFFLE, _CHECKSUM = 1, 2, 3


class Hdf5File:
    """Groups and data sets of an HDF5 file, by address.

    Args:
        file: The file.
        file_size: Its size in bytes.
        budget: What may be read.

    Attributes:
        root: Address of the root group.

    Raises:
        CheckpointError: By all methods: if the file is damaged, too large, or uses what MATLAB
            does not write.
    """

    def __init__(self, file: BinaryIO, file_size: int, budget: ReadingBudget) -> None:
        self._file = file
        self._size = file_size
        self._budget = budget
        self._base = 0
        starts = [b for b in _USER_BLOCKS if self._size > b + 8 and self._read(b, 8) == SIGNATURE]
        if not starts:
            raise CheckpointError("it has no HDF5 data")
        block = self._read(starts[0], min(128, self._size - starts[0]))
        version = number(block, 8, 1)
        if version not in (0, 1) or block[13:15] != b"\x08\x08":
            raise CheckpointError("it is HDF5 of a version that MATLAB does not write")
        position = 24 if version == 0 else 28
        if number(block, position, 8) != starts[0]:
            raise CheckpointError("it has a damaged HDF5 header")
        if number(block, position + 16, 8) > self._size:
            raise CheckpointError("it is truncated")
        self._base = starts[0]
        self.root = number(block, position + 40, 8)

    def _read(self, address: int, count: int) -> bytes:
        start = self._base + address
        if address < 0 or start + count > self._size:
            raise CheckpointError("it is truncated or damaged")
        self._file.seek(start)
        data = self._file.read(count)
        if len(data) != count:
            raise CheckpointError("it is truncated or damaged")
        return data

    def object(self, address: int) -> Hdf5Object:
        """Read the header at an address."""
        self._budget.take_values(1)
        prefix = self._read(address, 16)
        if prefix[0] != 1:
            raise CheckpointError("it has an HDF5 header of a version that MATLAB does not write")
        left = number(prefix, 2, 2)
        blocks = [(address + 16, number(prefix, 8, 4))]
        result = Hdf5Object()
        for start, size in blocks:
            # Every further block is named by a message, so their number has an end as well.
            if size > _MAX_HEADER:
                raise CheckpointError("it has a damaged HDF5 header")
            self._budget.take_bytes(size)
            data = self._read(start, size)
            position = 0
            while left > 0 and position + 8 <= size:
                kind, length = number(data, position, 2), number(data, position + 2, 2)
                message = data[position + 8 : position + 8 + length]
                left -= 1
                if kind == 0x10:
                    blocks.append((number(message, 0, 8), number(message, 8, 8)))
                else:
                    result.add_message(kind, data[position + 4], message)
                position += 8 + length
        return result

    def members(self, group: tuple[int, int]) -> dict[str, int]:
        """Names and addresses of what a group holds."""
        tree, heap = group
        header = self._read(heap, 32)
        if header[:4] != b"HEAP":
            raise CheckpointError("it has a damaged HDF5 group")
        size, start = number(header, 8, 8), number(header, 24, 8)
        self._budget.take_bytes(size)
        names = self._read(start, size)
        found: dict[str, int] = {}
        for _, node in self._leaves(tree, 0, 8):
            prefix = self._read(node, 8)
            count = number(prefix, 6, 2)
            if prefix[:4] != b"SNOD":
                raise CheckpointError("it has a damaged HDF5 group")
            self._budget.take_values(count)
            entries = self._read(node + 8, 40 * count)
            for i in range(count):
                offset = number(entries, 40 * i, 8)
                if number(entries, 40 * i + 16, 4) == 2:
                    raise CheckpointError("it has links of a kind that MATLAB does not write")
                end = names.find(b"\0", offset)
                if not 0 <= offset < end:
                    raise CheckpointError("it has a damaged HDF5 group")
                found[names[offset:end].decode("utf-8", "replace")] = number(entries, 40 * i + 8, 8)
        return found

    def _leaves(self, tree: int, kind: int, key_size: int) -> Iterator[tuple[bytes, int]]:
        """The keys and the addresses below a tree, in their order."""
        nodes: list[tuple[int, int | None]] = [(tree, None)]
        while nodes:
            address, expected = nodes.pop()
            self._budget.take_values(1)
            prefix = self._read(address, 24)
            level, count = prefix[5], number(prefix, 6, 2)
            # Levels that go down by one at each step leave no room for a cycle.
            wrong_level = level > _MAX_TREE_DEPTH if expected is None else level != expected
            if prefix[:4] != b"TREE" or prefix[4] != kind or wrong_level:
                raise CheckpointError("it has a damaged HDF5 tree")
            self._budget.take_values(count)
            data = self._read(address + 24, count * (key_size + 8))
            entries = []
            for i in range(count):
                start = i * (key_size + 8)
                entries.append((data[start : start + key_size], number(data, start + key_size, 8)))
            if level == 0:
                yield from entries
            else:
                nodes += [(child, level - 1) for _, child in reversed(entries)]

    def array(self, data_set: Hdf5Object) -> np.ndarray:
        """Read a data set, slowest dimension first."""
        shape, dtype, layout = data_set.shape, data_set.dtype, data_set.layout
        if shape is None or dtype is None:
            raise CheckpointError("it has a data set of a kind that MATLAB does not write")
        storage = storage_of(layout)
        size = math.prod(shape) * dtype.itemsize
        self._budget.take_bytes(size)
        if size == 0:
            return np.zeros(shape, dtype)
        if storage.address == _UNDEFINED or (data_set.filters and not storage.chunk):
            raise CheckpointError("it has an array without data")
        if storage.chunk:
            return self._chunked(shape, dtype, storage, data_set.filters)
        data = storage.data if storage.address is None else self._read(storage.address, size)
        if len(data) != size:
            raise CheckpointError("it has an array without data")
        return np.frombuffer(data, dtype).reshape(shape)

    def _chunked(
        self, shape: tuple[int, ...], dtype: np.dtype, storage: Hdf5Storage, filters: list[int]
    ) -> np.ndarray:
        rank, chunk = len(shape), storage.chunk
        known = set(filters) <= {_DEFLATE, _SHUFFLE, _CHECKSUM}
        if rank + 1 != len(chunk) or not known or chunk[-1] != dtype.itemsize or min(chunk) < 1:
            raise CheckpointError("it has data compressed in an unknown way")
        chunk_size = math.prod(chunk)
        if chunk_size > _MAX_CHUNK or storage.address is None:
            raise CheckpointError("it has data in pieces larger than MATLAB writes")
        expected = math.prod(-(-n // c) for n, c in zip(shape, chunk))
        self._budget.take_values(expected)
        pieces = {}
        for key, address in self._leaves(storage.address, 1, 8 + 8 * (rank + 1)):
            start = tuple(number(key, 8 + 8 * i, 8) for i in range(rank))
            if any(s >= n or s % c for s, n, c in zip(start, shape, chunk)):
                raise CheckpointError("it has a damaged HDF5 tree")
            pieces[start] = address, number(key, 0, 4), number(key, 4, 4)
        # Before the array is allocated: what is declared is there.
        if len(pieces) != expected:
            raise CheckpointError("it has an array without data")
        result = np.empty(shape, dtype)
        for start, (address, stored, skipped) in pieces.items():
            active = [f for i, f in enumerate(filters) if not skipped >> i & 1]
            data = self._unfiltered(self._read(address, stored), active, chunk_size, dtype.itemsize)
            values = np.frombuffer(data, dtype).reshape(chunk[:-1])
            part = tuple(slice(s, min(s + c, n)) for s, c, n in zip(start, chunk, shape))
            result[part] = values[tuple(slice(0, p.stop - p.start) for p in part)]
        return result

    def _unfiltered(self, data: bytes, filters: list[int], size: int, width: int) -> bytes:
        for kind in reversed(filters):
            if kind == _DEFLATE:
                # A chunk may not inflate to more than its declared size and a checksum.
                data = zlib.decompressobj().decompress(data, size + 4)
            elif kind == _CHECKSUM:
                data = data[:-4]
            else:
                data = np.frombuffer(data, "u1").reshape(width, -1).T.tobytes()
        if len(data) != size:
            raise CheckpointError("it has a damaged piece of data")
        return data
