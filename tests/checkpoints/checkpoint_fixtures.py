"""Writers of checkpoint files in plain Python, well-formed or not, without their frameworks."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STORAGES = {
    "float16": "Half",
    "float32": "Float",
    "float64": "Double",
    "int8": "Char",
    "int16": "Short",
    "int32": "Int",
    "int64": "Long",
    "uint8": "Byte",
    "bool": "Bool",
}
HEADER = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # The magic number of the older format.


@dataclass
class Raw:
    """Opcodes that leave one value."""

    code: bytes


@dataclass
class Storage:
    """Values of a torch file; `kind` is the storage's class, `count` what the pickle declares."""

    key: str
    values: np.ndarray
    kind: str = ""
    count: int | None = None

    def identifier(self) -> tuple[Any, ...]:
        kind = self.kind or f"torch.{STORAGES[self.values.dtype.name]}Storage"
        count = self.values.size if self.count is None else self.count
        return ("storage", named(kind), self.key, "cpu", count)


def named(name: str) -> Raw:
    module, _, last = name.rpartition(".")
    return Raw(f"c{module}\n{last}\n".encode())


def call(name: str, *arguments: Any) -> Raw:
    return Raw(named(name).code + opcodes(arguments) + b"R")


def tensor(
    storage: Storage, offset: Any = 0, shape: Any = None, strides: Any = None, tail: Any = None
) -> Raw:
    shape = storage.values.shape if shape is None else shape
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    tail = (False, call("collections.OrderedDict")) if tail is None else tail
    return call("torch._utils._rebuild_tensor_v2", storage, offset, shape, strides, *tail)


def opcodes(value: Any) -> bytes:
    """The opcodes, of protocol 2, that leave a value on the stack."""
    match value:
        case Raw(code):
            return code
        case Storage():
            return opcodes(value.identifier()) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            pairs = b"".join(opcodes(k) + opcodes(v) for k, v in value.items())
            return b"}(" + pairs + b"u"
    raise TypeError(type(value))


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + opcodes(value) + b"."


def zip_file(value: Any, storages: Sequence[Storage] = (), byteorder: str = "little") -> bytes:
    """A torch file of the zip format."""
    members = {"data.pkl": pickled(value), "byteorder": byteorder.encode()}
    for storage in storages:
        members[f"data/{storage.key}"] = storage.values.tobytes()
    return zipped({f"archive/{name}": content for name, content in members.items()})


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def older_file(value: Any, storages: Sequence[Storage] = ()) -> bytes:
    """A torch file of the format before the zip format."""
    keys = [storage.key for storage in storages]
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [HEADER, *map(pickled, (1001, system, value, keys))]
    for storage in storages:
        parts += [struct.pack("<q", storage.values.size), storage.values.tobytes()]
    return b"".join(parts)
