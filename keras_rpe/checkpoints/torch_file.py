"""State dicts that torch saved, read without torch and without running what they contain."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.checkpoints.file_names import shortened
from keras_rpe.checkpoints.pickled_dict import PickledDict
from keras_rpe.checkpoints.report import CheckpointError
from keras_rpe.checkpoints.stored_zip import StoredZip
from keras_rpe.checkpoints.torch_names import NAMES, REFUSALS, storage_of
from keras_rpe.checkpoints.torch_pickle import MAX_PICKLE_BYTES, read_pickle
from keras_rpe.checkpoints.torch_storage import TorchStorage
from keras_rpe.checkpoints.torch_tensor import TorchTensor

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
MAGIC = 0x1950A86A20F9469CFC6C
# Tensors may share values, and bfloat16 doubles; what asks for more than that is a bomb.
MAX_EXPANSION = 8
SMALL_BYTES = 1 << 20

Storages = dict[str, TorchStorage]
Content = Callable[[TorchStorage], bytearray]


def read_torch_file(
    path: str | os.PathLike[str], max_bytes: int = 4 << 30
) -> dict[str, np.ndarray]:
    """Read the state dict of a `.pth` or `.pt` file, in the zip format or the one before it.

    The file is a pickle, a program that can do anything. Here it meets a machine that knows
    tensors, dicts, lists, numbers and text alone; whatever else it names is refused.

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
        keras_rpe.checkpoints.report.CheckpointError: `path` must be a state dict saved
        by torch. Received: 'missing.pth', which is not a file
    """
    if not isinstance(max_bytes, int) or max_bytes < 1:
        raise ValueError(f"`max_bytes` must be a positive int. Received: max_bytes={max_bytes!r}")
    path = Path(path)
    try:
        # Anything else, like a pipe, could block.
        if not path.is_file():
            raise CheckpointError("is not a file")
        with path.open("rb") as stream:
            return _arrays(stream, path.stat().st_size, max_bytes)
    except CheckpointError as error:
        reason = str(error)
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except MemoryError:
        reason = "needs more memory than there is"
    raise CheckpointError(
        f"`path` must be a state dict saved by torch. Received: {str(path)!r}, which {reason}"
    )


def _arrays(stream: BufferedIOBase, size: int, max_bytes: int) -> dict[str, np.ndarray]:
    start = stream.read(4)
    stream.seek(0)
    if start == b"PK\x03\x04":
        value, content, byteorder = _zip_format(stream, size)
    elif start[:1] == b"\x80":
        value, content = _older_format(stream, size)
        byteorder = "little"
    else:
        raise CheckpointError("is of another format")
    tensors = _state_dict(value)
    total = sum(tensor.size for tensor in tensors.values())
    limit = min(max_bytes, max(MAX_EXPANSION * size, SMALL_BYTES))
    if total > limit:
        raise CheckpointError(f"would fill {total} bytes, above the limit of {limit}")
    arrays: dict[str, np.ndarray] = {}
    # One storage at a time, so that no more than one is held next to the arrays.
    sharing: dict[TorchStorage, list[str]] = {}
    for name, tensor in tensors.items():
        sharing.setdefault(tensor.storage, []).append(name)
    for storage, names in sharing.items():
        data = content(storage)
        arrays.update({name: tensors[name].values(data, byteorder) for name in names})
    return {name: arrays[name] for name in tensors}


def _zip_format(stream: BufferedIOBase, size: int) -> tuple[Any, Content, str]:
    archive = StoredZip(stream, size)
    roots = [name[: -len("data.pkl")] for name in archive.names if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointError("is a zip archive without one data.pkl")
    root = roots[0]
    if (archive.length(f"{root}data.pkl") or 0) > MAX_PICKLE_BYTES:
        raise CheckpointError(f"holds a pickle of more than {MAX_PICKLE_BYTES} bytes")
    byteorder = "little"
    if (length := archive.length(f"{root}byteorder")) is not None:
        byteorder = str(archive.read(f"{root}byteorder"), "latin-1") if length < 8 else ""
        if byteorder not in ("little", "big"):
            raise CheckpointError("has an unknown byte order")
    value, storages = _read_object(io.BytesIO(archive.read(f"{root}data.pkl")))
    for key, storage in storages.items():
        found = archive.length(f"{root}data/{key}")
        if found != storage.size:
            raise CheckpointError(
                f"declares {storage.size} bytes for the storage {shortened(key)} and has "
                f"{'none' if found is None else found}"
            )
    return value, lambda storage: archive.read(f"{root}data/{storage.key}"), byteorder


def _older_format(stream: BufferedIOBase, size: int) -> tuple[Any, Content]:
    # Three pickles of a header, the object, the keys of the storages in order, the storages.
    header = [read_pickle(stream, {}, {}, _no_storage) for _ in range(3)]
    if header[0] != MAGIC or type(header[1]) is not int or not isinstance(header[2], PickledDict):
        raise CheckpointError("is of another format")
    if header[1] != 1001 or header[2].get("little_endian") is not True:
        raise CheckpointError("is of an unknown protocol or byte order")
    value, storages = _read_object(stream)
    keys = read_pickle(stream, {}, {}, _no_storage)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("has no list of its storages")
    if len(set(keys)) < len(keys) or set(keys) != set(storages):
        raise CheckpointError("lists other storages than its tensors have")
    places: dict[str, int] = {}
    at = stream.tell()
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

    def content(storage: TorchStorage) -> bytearray:
        data = bytearray(storage.size)
        stream.seek(places[storage.key])
        if stream.readinto(data) != storage.size:
            raise CheckpointError("changes while it is read")
        return data

    return value, content


def _no_storage(identifier: Any) -> Any:
    raise CheckpointError("has a storage where none can be")


def _read_object(stream: BufferedIOBase) -> tuple[Any, Storages]:
    storages: Storages = {}

    def remember(identifier: Any) -> TorchStorage:
        storage = storage_of(identifier)
        if storages.setdefault(storage.key, storage) != storage:
            raise CheckpointError(f"has two storages under the key {shortened(storage.key)}")
        return storages[storage.key]

    return read_pickle(stream, NAMES, REFUSALS, remember), storages


def _state_dict(value: Any) -> dict[str, TorchTensor]:
    if not isinstance(value, PickledDict):
        raise CheckpointError("holds something other than a dict")
    pairs = value.pairs()
    if not any(isinstance(item, TorchTensor) for _, item in pairs):
        inner = next((d for d in map(value.get, WRAPPERS) if isinstance(d, PickledDict)), value)
        pairs = inner.pairs()
    tensors: dict[str, TorchTensor] = {}
    for name, item in pairs:
        if isinstance(item, int | float | str | bytes | None):
            continue
        if not isinstance(name, str) or not isinstance(item, TorchTensor):
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
