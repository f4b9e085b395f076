"""MATLAB files of version 7.3, which are HDF5 with their dimensions reversed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, BinaryIO

import numpy as np

from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.hdf5_file import Hdf5File
from keras_rpe.checkpoints.hdf5_object import Hdf5Object
from keras_rpe.checkpoints.matlab_struct import MatlabStruct, UnreadValue
from keras_rpe.checkpoints.reading_budget import ReadingBudget

_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_NUMERIC = ("double", "single", "logical", *_INTEGERS)


def read_matlab73(
    file: BinaryIO, file_size: int, wanted: Collection[str], budget: ReadingBudget
) -> dict[str, Any]:
    """Read some of the variables of a file.

    Args:
        file: The file.
        file_size: Its size in bytes.
        wanted: Names of the variables; others are passed over.
        budget: What may be read.

    Returns:
        The variables that the file has, as `MatlabStruct` tells; what is not read is an
        `UnreadValue`.

    Raises:
        CheckpointError: If the file is damaged, too large or of another kind.
    """
    hdf5 = Hdf5File(file, file_size, budget)
    root = hdf5.object(hdf5.root)
    if root.group is None:
        raise CheckpointError("it has a damaged HDF5 group")
    reader = _Values(hdf5, budget)
    members = hdf5.members(root.group)
    return {name: reader.read(members[name], ()) for name in wanted if name in members}


class _Values:
    def __init__(self, hdf5: Hdf5File, budget: ReadingBudget) -> None:
        self._hdf5 = hdf5
        self._budget = budget
        self._known: dict[int, Any] = {}

    def read(self, address: int, above: tuple[int, ...]) -> Any:
        """The value at an address, which is part of those at the addresses above."""
        self._budget.check_depth(len(above))
        if address in above:
            raise CheckpointError("it has a value that is part of itself")
        # Cells that refer to one another many times over would else take time without end.
        if address not in self._known:
            self._known[address] = self._value(address, (*above, address))
        return self._known[address]

    def _value(self, address: int, above: tuple[int, ...]) -> Any:
        item = self._hdf5.object(address)
        class_name = str(item.attributes.get("MATLAB_class", ""))
        if "MATLAB_object_decode" in item.attributes or "MATLAB_sparse" in item.attributes:
            return UnreadValue("an object or a sparse array")
        if item.group is not None:
            if class_name not in ("", "struct"):
                return UnreadValue(f"of the class {class_name}")
            return self._struct(item.group, above)
        if item.attributes.get("MATLAB_empty"):
            empty = {"cell": [], "char": "", "struct": MatlabStruct(0)}
            return empty.get(class_name, np.zeros((0, 0), "float32"))
        if class_name == "cell" and item.is_reference:
            return self._referenced(item, above)
        if class_name == "char" and item.dtype == np.dtype("<u2"):
            data = self._hdf5.array(item).tobytes()
            return data.decode("utf-16-le", "replace")
        if class_name in _NUMERIC and item.dtype is not None and not item.is_reference:
            return self._hdf5.array(item).T
        return UnreadValue(f"of the class {class_name or 'unknown'}")

    def _struct(self, group: tuple[int, int], above: tuple[int, ...]) -> MatlabStruct:
        """A struct: its fields are members, and of an array each holds references."""
        members = self._hdf5.members(group)
        items = {name: self._hdf5.object(address) for name, address in members.items()}
        if items and all(
            item.is_reference and "MATLAB_class" not in item.attributes for item in items.values()
        ):
            fields = {name: self._referenced(item, above) for name, item in items.items()}
            sizes = {len(values) for values in fields.values()}
            if len(sizes) != 1:
                raise CheckpointError("it has a struct with fields of several sizes")
            return MatlabStruct(sizes.pop(), fields)
        return MatlabStruct(
            1, {name: [self.read(address, above)] for name, address in members.items()}
        )

    def _referenced(self, item: Hdf5Object, above: tuple[int, ...]) -> list[Any]:
        addresses = self._hdf5.array(item).ravel().tolist()
        self._budget.take_values(len(addresses))
        return [self.read(address, above) for address in addresses]
