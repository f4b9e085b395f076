from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_rpe.checkpoints import CheckpointError, read_safetensors

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "bool"]


def content(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], *offsets: int) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}}


def refusal(tmp_path: Path, data: bytes, **options: Any) -> str:
    """The one sentence with which a file is refused, from the file's name on."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_safetensors(path, **options)
    message = str(caught.value)
    assert message.startswith("`path` must be a safetensors file. Received: ")
    assert "\n" not in message
    return message.split("a.safetensors', which ")[1]


def test_arrays_of_all_types(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {dtype: np.abs(random.normal(size=(3, 4)) * 5).astype(dtype) for dtype in DTYPES}
    arrays |= {"empty": np.zeros((0, 3), "f4"), "scalar": np.array(3.0, "f4")}
    save_file(arrays, tmp_path / "a.safetensors", {"format": "np"})
    read = read_safetensors(tmp_path / "a.safetensors")
    assert list(read) == sorted(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].flags.writeable
        np.testing.assert_array_equal(read[name], array, strict=True)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    bits = np.array([[0x3F80, 0xC000], [0x7F80, 0x8000]], "<u2")
    path.write_bytes(content(entry("BF16", [2, 2], 0, 8), bits.tobytes()))
    array = read_safetensors(path)["a"]
    np.testing.assert_array_equal(array, np.array([[1, -2], [np.inf, -0.0]], "f4"), strict=True)
    assert np.signbit(array[1, 1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (content({}, length=2**63), "is damaged"),
        (content({}), "has no arrays"),
        (content(entry("F32", [1], 0, 4), b"abc"), "is damaged"),
        (content(entry("F32", [2], 0, 4), b"abcd"), "is damaged"),
        (content(entry("F8_E4M3", [1], 0, 1), b"a"), "of the type 'F8_E4M3', which NumPy lacks"),
    ],
)
def test_damaged_files(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refusal(tmp_path, data)


def test_limits(tmp_path: Path) -> None:
    data = content(entry("F32", [2], 0, 8), bytes(8))
    assert f"above the limit of {len(data) - 1}" in refusal(tmp_path, data, max_bytes=len(data) - 1)
    assert read_safetensors(tmp_path / "a.safetensors", len(data))["a"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="max_bytes=0"):
        read_safetensors(tmp_path / "a.safetensors", 0)
    with pytest.raises(CheckpointError, match="which is not a file"):
        read_safetensors(tmp_path)
