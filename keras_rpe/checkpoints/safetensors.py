"""Arrays of safetensors files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.arguments import check_integer
from keras_rpe.checkpoints.report import (
    CheckpointError,
    bfloat16_to_float32,
    one_sentence,
    shortened,
)
from keras_rpe.optional_import import optional_import

_DTYPES = {"BF16": "<u2", "BOOL": "?"}
_DTYPES |= {f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)}
_DTYPES |= {f"{k}{bits}": f"<{k.lower()}{bits // 8}" for k in "IU" for bits in (8, 16, 32, 64)}


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
        return {name: _array(name, entry) for name, entry in sorted(entries, key=lambda e: e[0])}


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
