"""Arrays of safetensors files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.arguments import check_integer
from keras_rpe.checkpoints.report import DAMAGE, CheckpointError, bfloat16_to_float32, shortened
from keras_rpe.optional_import import optional_import

_DTYPES = {
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "?",
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
    check_integer("max_bytes", max_bytes)
    safetensors = optional_import("safetensors", "safetensors")
    path = Path(path)
    try:
        # Anything else, like a pipe, could block.
        if not path.is_file():
            raise CheckpointError("is not a file")
        size = path.stat().st_size
        if size > max_bytes:
            raise CheckpointError(f"has {size} bytes, above the limit of {max_bytes}")
        entries = safetensors.deserialize(path.read_bytes())
        if not entries:
            raise CheckpointError("has no arrays")
        return {name: _array(name, entry) for name, entry in sorted(entries, key=lambda e: e[0])}
    except CheckpointError as error:
        reason = str(error)
    except MemoryError:
        reason = "needs more memory than there is"
    except (safetensors.SafetensorError, *DAMAGE) as error:
        reason = f"is damaged ({shortened(str(error))})"
    raise CheckpointError(
        f"`path` must be a safetensors file. Received: {str(path)!r}, which {reason}"
    )


def _array(name: str, entry: dict[str, Any]) -> np.ndarray:
    dtype = entry["dtype"]
    if dtype not in _DTYPES:
        raise CheckpointError(
            f"has the array {shortened(name)} of the type {shortened(dtype)}, which NumPy lacks"
        )
    array = np.frombuffer(entry["data"], _DTYPES[dtype]).reshape(entry["shape"])
    if dtype == "BF16":
        return bfloat16_to_float32(array)
    return array.astype(array.dtype.newbyteorder("="))
