import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints.matconvnet_fixtures import small_network, write
from checkpoints.refusal import refused

from keras_rpe.checkpoints import read_matconvnet

_HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def _matrix(class_number: int, dims: list[int], name: bytes, body: bytes) -> bytes:
    flags = _element(6, struct.pack("<II", class_number, 0))
    shape = b"" if class_number == 17 else _element(5, np.array(dims, "<i4").tobytes())
    return _element(14, flags + shape + _element(1, name) + body)


def _zeros(count: int) -> bytes:
    return struct.pack("<II", 7, 4 * count) + bytes(4 * count)


def test_a_bomb_in_a_compressed_element(tmp_path: Path) -> None:
    # 160 MB of zeros, as one array and as a cell of many, are a file of 160 kB.
    count = 40_000_000
    one = _matrix(7, [count, 1], b"net", _zeros(count))
    part = _matrix(7, [count // 40, 1], b"", _zeros(count // 40))
    for matrix in (one, _matrix(1, [40, 1], b"net", part * 40)):
        path = tmp_path / "bomb.mat"
        path.write_bytes(_HEADER + _element(15, zlib.compress(matrix, 1)))
        assert path.stat().st_size < 2_000_000
        refused(path, "it declares more than the")


def test_a_bomb_behind_another_value(tmp_path: Path) -> None:
    # The matrix is longer than the value in it, and the rest would be passed over.
    head = _matrix(7, [1, 1], b"net", _element(7, struct.pack("<f", 1.0)))[8:]
    matrix = struct.pack("<II", 14, 2**31) + head + bytes(150_000_000)
    path = tmp_path / "bomb.mat"
    path.write_bytes(_HEADER + _element(15, zlib.compress(matrix, 1)))
    refused(path, "it declares more than the")


def test_a_bomb_in_another_variable_is_not_inflated(tmp_path: Path) -> None:
    path = write(tmp_path / "net.mat", small_network().tree(), "v5_compressed")
    bomb = _matrix(7, [50_000_000, 1], b"state", _zeros(50_000_000))
    path.write_bytes(path.read_bytes() + _element(15, zlib.compress(bomb, 1)))
    tracemalloc.start()
    assert len(read_matconvnet(path).layers) == 5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


def test_sizes_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "net.mat"
    huge = [2**31 - 1, 2**31 - 1]
    for body, reason in [
        (_matrix(1, huge, b"net", b""), "it declares more than the 200000 values"),
        (_matrix(7, huge, b"net", _element(7, b"1234")), "4 bytes for an array of the size"),
        (_matrix(7, [-1, 2], b"net", b""), "it has an array of the size"),
        (_matrix(7, [1] * 40, b"net", b""), "it has an array of the size"),
        (_matrix(2, [9**9, 9], b"net", _element(5, b"\x02\0\0\0") + _element(1, b"a\0")), "values"),
    ]:
        path.write_bytes(_HEADER + body)
        refused(path, reason)


def test_deep_values(tmp_path: Path) -> None:
    value: Any = np.ones((1, 1))
    for _ in range(60):
        value = [value]
    for writer in ("v5", "v7.3"):
        path = write(tmp_path / "net.mat", {"layers": value, "params": value}, writer)
        refused(path, "nested deeper")


@pytest.mark.parametrize("class_number", [17, 16])
def test_objects_and_functions_are_passed_over(tmp_path: Path, class_number: int) -> None:
    path = tmp_path / "net.mat"
    matrix = _matrix(class_number, [1, 1], b"net", _element(1, b"MCOS") + _element(1, b"DagNN"))
    path.write_bytes(_HEADER + matrix)
    refused(path, r"`net` is an object: save `net.saveobj\(\)`")
