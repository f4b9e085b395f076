"""Arrays of safetensors files."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.checkpoints.bfloat16 import bfloat16_to_float32
from keras_rpe.checkpoints.file_names import shortened
from keras_rpe.checkpoints.report import CheckpointError
from keras_rpe.optional_import import optional_import

MAX_HEADER_BYTES = 16 << 20
MAX_DIMENSIONS = 32

_DTYPES = {
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
    "F64": "<f8",
    "C64": "<c8",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "u1",
}


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
    if not isinstance(max_bytes, int) or max_bytes < 1:
        raise ValueError(f"`max_bytes` must be a positive int. Received: max_bytes={max_bytes!r}")
    safetensors = optional_import("safetensors", "safetensors")
    path = Path(path)
    try:
        # Anything else, like a pipe, could block.
        if not path.is_file():
            raise CheckpointError("is not a file")
        entries = safetensors.deserialize(_checked_content(path, max_bytes))
        if not entries:
            raise CheckpointError("has no arrays")
        return {name: _array(name, entry) for name, entry in sorted(entries, key=lambda e: e[0])}
    except CheckpointError as error:
        reason = str(error)
    except safetensors.SafetensorError as error:
        reason = f"is damaged ({shortened(str(error))})"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except MemoryError:
        reason = "needs more memory than there is"
    raise CheckpointError(
        f"`path` must be a safetensors file. Received: {str(path)!r}, which {reason}"
    )


def _checked_content(path: Path, max_bytes: int) -> bytes:
    size = path.stat().st_size
    if size > max_bytes:
        raise CheckpointError(f"has {size} bytes, above the limit of {max_bytes}")
    with path.open("rb") as stream:
        start = stream.read(9)
        # Eight bytes of the length of the header, then the header, JSON of an object.
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{":
            raise CheckpointError("is of another format")
        if length > size - 8:
            raise CheckpointError(
                f"is truncated: its header should have {length} bytes, and {size - 8} are there"
            )
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"has a header of {length} bytes, above the limit of {MAX_HEADER_BYTES}"
            )
        return start + stream.read(size - len(start))


def _array(name: str, entry: dict[str, Any]) -> np.ndarray:
    dtype = entry["dtype"]
    if dtype not in _DTYPES:
        raise CheckpointError(
            f"has the array {shortened(name)} of the type {shortened(dtype)}, which NumPy lacks"
        )
    shape = tuple(entry["shape"])
    if len(shape) > MAX_DIMENSIONS or math.prod(max(n, 1) for n in shape) >= 2**48:
        raise CheckpointError(f"has the array {shortened(name)} of an absurd shape")
    array = np.frombuffer(entry["data"], _DTYPES[dtype]).reshape(shape)
    if dtype == "BF16":
        return bfloat16_to_float32(array)
    if dtype == "BOOL":
        return array != 0
    return array.astype(array.dtype.newbyteorder("="))
