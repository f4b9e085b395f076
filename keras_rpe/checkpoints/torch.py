"""Weights of torch, `.pth` and `.safetensors`, read without torch and without running anything."""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_rpe.arguments import check_integer
from keras_rpe.checkpoints.report import (
    CheckpointError,
    bfloat16_to_float32,
    one_sentence,
    shortened,
)
from keras_rpe.optional_import import optional_import

# An entry of a state dict takes some 200 bytes; a pickle of this size stays far below a gigabyte.
_MAX_PICKLE_BYTES = 4 << 20
# Tensors may share values, and bfloat16 doubles; what asks for more than that is a bomb.
_MAX_EXPANSION = 8
_SMALL_BYTES = 1 << 20
_MAX_DIMENSIONS = 32
_MAX_ARGUMENTS = 8

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

# bfloat16 is read as its bits and widened then.
_BFLOAT16 = np.dtype([("bits", "<u2")])
_STORAGES = {
    "Half": np.dtype("<f2"),
    "BFloat16": _BFLOAT16,
    "Float": np.dtype("<f4"),
    "Double": np.dtype("<f8"),
    "Char": np.dtype("i1"),
    "Short": np.dtype("<i2"),
    "Int": np.dtype("<i4"),
    "Long": np.dtype("<i8"),
    "Byte": np.dtype("u1"),
    "Bool": np.dtype("?"),
}


def read_torch_file(
    path: str | os.PathLike[str], max_bytes: int = 4 << 30
) -> dict[str, np.ndarray]:
    """Read the state dict of a `.pth` or `.pt` file, in the zip format or the one before it.

    The file is a pickle, a program that can do anything. Here it is given only tensors, dicts,
    lists, numbers and text to work with; whatever else it names is refused.

    Args:
        path: A file of `torch.save`: a state dict, or a dict that holds one under "state_dict",
            "model_state_dict", "model" or "net". Other numbers and texts in it are ignored.
        max_bytes: The largest sum of the bytes of the arrays. Eight times the size of the file (or
            1 MiB) is a limit too.

    Returns:
        The arrays by name, in the order of the file; a "module." before all names is taken off.
        They are contiguous copies, bfloat16 as float32.

    Raises:
        CheckpointError: If the file cannot be read, is damaged, too large, or holds something else.

    Example:
        >>> from keras_rpe.checkpoints import read_torch_file
        >>> read_torch_file("missing.pth")
        Traceback (most recent call last):
        ...
        keras_rpe.checkpoints.report.CheckpointError: `path` must be a state dict saved by torch.
        Received: 'missing.pth', which is not a file
    """
    check_integer("max_bytes", max_bytes)
    path = Path(path)
    damage = (pickle.UnpicklingError, zipfile.BadZipFile)
    with (
        one_sentence(path, "a state dict saved by torch", *damage),
        path.open("rb") as stream,
    ):
        return _arrays(stream, path.stat().st_size, max_bytes)


@dataclass(frozen=True)
class _Storage:
    """The flat values that tensors are views of."""

    key: str
    dtype: np.dtype
    count: int

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class _Tensor:
    """A strided view of a storage; offset and strides count values."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.strides) or len(self.shape) > _MAX_DIMENSIONS:
            raise CheckpointError("has a tensor whose sizes and strides do not fit each other")
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
            raise CheckpointError("has a tensor with a negative or absurd size, stride or offset")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        if 0 not in self.shape and last >= self.storage.count:
            raise CheckpointError("has a tensor that reaches out of its storage")

    @property
    def size(self) -> int:
        """The bytes of the array; with a size of zero, as if it were one."""
        itemsize = 4 if self.storage.dtype == _BFLOAT16 else self.storage.dtype.itemsize
        return math.prod(max(n, 1) for n in self.shape) * itemsize

    def values(self, content: bytes) -> np.ndarray:
        dtype = self.storage.dtype
        if 0 in self.shape:
            view = np.empty(self.shape, dtype)
        else:
            strides = tuple(stride * dtype.itemsize for stride in self.strides)
            view = np.ndarray(self.shape, dtype, content, self.offset * dtype.itemsize, strides)
        if dtype == _BFLOAT16:
            return bfloat16_to_float32(view["bits"])
        return view.astype(dtype.newbyteorder("="), order="C")


class _Dict:
    """A dict of a pickle as its pairs: no key is hashed, so that crafted ones cannot be slow."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Any = ()) -> None:
        self._pairs = pairs if isinstance(pairs, list) else []

    def __len__(self) -> int:
        return len(self._pairs)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._pairs.append((key, value))

    def pairs(self) -> list[tuple[Any, Any]]:
        return [(key, value) for key, value in self._pairs]

    def get(self, name: str) -> Any:
        found = [value for key, value in self.pairs() if isinstance(key, str) and key == name]
        return found[-1] if found else None


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> _Tensor:
    # More are whether a gradient is wanted, hooks, and in newer files flags of the view.
    if any(isinstance(value, _Dict) and len(value) for value in more[2:]):
        raise CheckpointError("has a tensor that is conjugated or negated when it is read")
    if not all(map(isinstance, (storage, shape, strides), (_Storage, tuple, tuple))):
        raise CheckpointError("has a tensor with arguments that no tensor has")
    return _Tensor(storage, offset, shape, strides)


def _first(value: Any, *_: Any) -> Any:
    return value


# All that a pickle may name, and what stands in for it.
_NAMES: dict[str, Any] = {
    "collections.OrderedDict": _Dict,
    "torch.Size": _first,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    **{f"torch.{name}Storage": dtype for name, dtype in _STORAGES.items()},
}
# The opcodes of protocols 2 and 4 that make numbers, texts, tuples, lists, dicts, and the above.
_OPCODES = """
    PROTO FRAME MARK POP POP_MARK STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
    BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
    BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL BINPERSID REDUCE BUILD
"""


# The unpickler written in Python: the one in C sets aside memory for whatever index a memo has, and
# its dicts hash whatever key they get.
class _Unpickler(pickle._Unpickler):
    """An unpickler that knows the opcodes and the names of a state dict, and no others."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {
        code: pickle._Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _OPCODES.split())
    }

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in _NAMES:
            raise CheckpointError(
                f"names the global {shortened(full_name)}, which is refused: no state dict needs it"
            )
        return _NAMES[full_name]

    def persistent_load(self, pid: Any) -> _Storage:
        # ("storage", type, key, location, count), then in older files the place of a view or None.
        match pid if isinstance(pid, tuple) and len(pid) <= _MAX_ARGUMENTS else ():
            case ("storage", np.dtype() as dtype, str(key), str(), int(count), *view) if (
                view in ([], [None]) and 0 <= count < 2**56
            ):
                storage = _Storage(key, dtype, count)
            case _:
                raise CheckpointError("holds a persistent identifier that is not a storage")
        if self.storages.setdefault(key, storage) != storage:
            raise CheckpointError(f"has two storages under the key {shortened(key)}")
        return storage

    def load_empty_dictionary(self) -> None:
        self.stack.append(_Dict())

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        # Long arguments would be copied at every call.
        if not isinstance(arguments, tuple) or len(arguments) > _MAX_ARGUMENTS:
            raise CheckpointError("has a tensor with arguments that no tensor has")
        self.stack.append(function(*arguments))

    def load_build(self) -> None:
        # What is set on an OrderedDict are the versions of the modules: nothing here needs them.
        self.stack.pop()

    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dictionary
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


_Content = Callable[[_Storage], bytes]


def _arrays(stream: BufferedIOBase, size: int, max_bytes: int) -> dict[str, np.ndarray]:
    start = stream.read(4)
    stream.seek(0)
    if start == b"PK\x03\x04":
        with zipfile.ZipFile(stream) as archive:
            return _values(*_zip_format(archive, size), size, max_bytes)
    if start[:1] == b"\x80":
        return _values(*_older_format(stream, size), size, max_bytes)
    raise CheckpointError("is of another format")


def _values(value: Any, content: _Content, size: int, max_bytes: int) -> dict[str, np.ndarray]:
    tensors = _state_dict(value)
    total = sum(tensor.size for tensor in tensors.values())
    limit = min(max_bytes, max(_MAX_EXPANSION * size, _SMALL_BYTES))
    if total > limit:
        raise CheckpointError(f"would fill {total} bytes, above the limit of {limit}")
    arrays: dict[str, np.ndarray] = {}
    # One storage at a time, so that no more than one is held next to the arrays.
    sharing: dict[_Storage, list[str]] = {}
    for name, tensor in tensors.items():
        sharing.setdefault(tensor.storage, []).append(name)
    for storage, names in sharing.items():
        data = content(storage)
        arrays.update({name: tensors[name].values(data) for name in names})
    return {name: arrays[name] for name in tensors}


def _zip_format(archive: zipfile.ZipFile, size: int) -> tuple[Any, _Content]:
    members = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise CheckpointError("is a zip archive with compressed members, which no state dict has")
    if sum(info.file_size for info in members.values()) > size:
        raise CheckpointError("is a zip archive whose members overlap")
    roots = [name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointError("is a zip archive without one data.pkl")
    root = roots[0]
    if members[f"{root}data.pkl"].file_size > _MAX_PICKLE_BYTES:
        raise CheckpointError(f"holds a pickle of more than {_MAX_PICKLE_BYTES} bytes")
    order = members.get(f"{root}byteorder")
    if order is not None and (order.file_size != 6 or archive.read(order) != b"little"):
        raise CheckpointError("has an unknown byte order")
    unpickler = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")))
    value = unpickler.load()
    for key, storage in unpickler.storages.items():
        member = members.get(f"{root}data/{key}")
        if member is None or member.file_size != storage.size:
            raise CheckpointError(
                f"declares {storage.size} bytes for the storage {shortened(key)} and has "
                f"{'none' if member is None else member.file_size}"
            )
    return value, lambda storage: archive.read(f"{root}data/{storage.key}")


def _older_format(stream: BufferedIOBase, size: int) -> tuple[Any, _Content]:
    # Three pickles of a header, the object, the keys of the storages in order, the storages.
    pickles = io.BytesIO(stream.read(_MAX_PICKLE_BYTES))
    magic, protocol, system = (_Unpickler(pickles).load() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or system.get("little_endian") is not True:
        raise CheckpointError("is of another format, an unknown protocol or byte order")
    unpickler = _Unpickler(pickles)
    value = unpickler.load()
    storages = unpickler.storages
    keys = _Unpickler(pickles).load()
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise CheckpointError("lists other storages than its tensors have")
    places: dict[str, int] = {}
    at = pickles.tell()
    for key in keys:
        stream.seek(at)
        count = int.from_bytes(stream.read(8), "little", signed=True)
        storage = storages[key]
        if count != storage.count:
            raise CheckpointError(
                f"declares {storage.count} values for the storage {shortened(key)} and has {count}"
            )
        places[key] = at + 8
        at += 8 + storage.size
        if at > size:
            raise CheckpointError(f"is truncated: it should have at least {at} bytes, not {size}")
    if at != size:
        raise CheckpointError(f"has {size - at} bytes after its last storage")

    def content(storage: _Storage) -> bytes:
        stream.seek(places[storage.key])
        return stream.read(storage.size)

    return value, content


def _state_dict(value: Any) -> dict[str, _Tensor]:
    if not isinstance(value, _Dict):
        raise CheckpointError("holds something other than a dict")
    pairs = value.pairs()
    if not any(isinstance(item, _Tensor) for _, item in pairs):
        inner = next((d for d in map(value.get, _WRAPPERS) if isinstance(d, _Dict)), value)
        pairs = inner.pairs()
    tensors: dict[str, _Tensor] = {}
    for name, item in pairs:
        if isinstance(item, int | float | str | bytes | None):
            continue
        if not isinstance(name, str) or not isinstance(item, _Tensor):
            shown = shortened(name) if isinstance(name, str) else "without a name"
            raise CheckpointError(f"is no state dict: its entry {shown} is not a tensor")
        if name in tensors:
            raise CheckpointError(f"has the name {shortened(name)} twice")
        tensors[name] = item
    if not tensors:
        raise CheckpointError("has no tensors")
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


_SAFE_DTYPES = {"BF16": "<u2", "BOOL": "?"}
_SAFE_DTYPES |= {f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)}
_SAFE_DTYPES |= {f"{k}{bits}": f"<{k.lower()}{bits // 8}" for k in "IU" for bits in (8, 16, 32, 64)}


def read_safetensors(
    path: str | os.PathLike[str], max_bytes: int = 4 << 30
) -> dict[str, np.ndarray]:
    """Read the arrays of a `.safetensors` file.

    Args:
        path: The file.
        max_bytes: The largest size of the file.

    Returns:
        The arrays by name, sorted by it, as the format keeps no order; bfloat16 as float32.

    Raises:
        CheckpointError: If the file cannot be read, is damaged, too large, or has a type of numbers
            that NumPy lacks, other than bfloat16.
        ImportError: If the extra `safetensors` is not installed.

    Example:
        >>> from keras_rpe.checkpoints import read_safetensors
        >>> read_safetensors("missing.safetensors")
        Traceback (most recent call last):
        ...
        keras_rpe.checkpoints.report.CheckpointError: `path` must be a safetensors file.
        Received: 'missing.safetensors', which is not a file
    """
    check_integer("max_bytes", max_bytes)
    safetensors = optional_import("safetensors", "safetensors")
    path = Path(path)
    with one_sentence(path, "a safetensors file", safetensors.SafetensorError):
        size = path.stat().st_size
        if size > max_bytes:
            raise CheckpointError(f"has {size} bytes, above the limit of {max_bytes}")
        entries = safetensors.deserialize(path.read_bytes())
        if not entries:
            raise CheckpointError("has no arrays")
        return {
            name: _safe_array(name, entry) for name, entry in sorted(entries, key=lambda e: e[0])
        }


def _safe_array(name: str, entry: dict[str, Any]) -> np.ndarray:
    dtype = entry["dtype"]
    if dtype not in _SAFE_DTYPES:
        raise CheckpointError(
            f"has the array {shortened(name)} of the type {shortened(dtype)}, which NumPy lacks"
        )
    array = np.frombuffer(entry["data"], _SAFE_DTYPES[dtype]).reshape(entry["shape"])
    if dtype == "BF16":
        return bfloat16_to_float32(array)
    return array.astype(array.dtype.newbyteorder("="))
