from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from checkpoints.matconvnet_fixtures import WRITERS, StructArray, small_network, write, write_v73

from keras_rpe.checkpoints import CheckpointError, read_matconvnet
from keras_rpe.checkpoints.matlab import read_matlab

MAX_BYTES = 200 << 20
_HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def refused(path: Path, reason: str) -> None:
    """Refused with one sentence, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=reason) as caught:
            read_matlab(path, ("net", "layers"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < MAX_BYTES


@pytest.mark.parametrize("writer", WRITERS)
def test_values(tmp_path: Path, writer: str) -> None:
    numbers = np.random.default_rng(0).normal(size=(4, 3, 2))
    value = {
        "text": "größer",
        "empty": "",
        "numbers": numbers,
        "bytes": np.arange(6, dtype="uint8").reshape(2, 3),
        "cell": ["a", np.ones((1, 2)), ["b"]],
        "rows": StructArray([{"a": "x", "b": np.ones((1, 1))}, {"a": "y", "b": "z"}]),
        "one": {"a": np.full((1, 1), 7.0)},
    }
    path = write(tmp_path / "a.mat", {"net": value, "other": {"x": "y"}}, writer, nested=False)
    net = read_matlab(path, ("net", "missing"))["net"]
    assert read_matlab(path, ("net", "other")).keys() == {"net", "other"}
    assert net["text"] == "größer"
    assert len(net["empty"]) == 0
    np.testing.assert_array_equal(net["numbers"], numbers)
    np.testing.assert_array_equal(net["bytes"], value["bytes"])
    assert net["bytes"].dtype == "uint8"
    assert net["cell"][0] == "a"
    assert net["cell"][1].tolist() == [[1, 1]]
    assert net["cell"][2] == ["b"]
    assert [row["a"] for row in net["rows"]] == ["x", "y"]
    assert net["rows"][1]["b"] == "z"
    assert net["one"]["a"] == 7


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    refused(path, "there is no such file")
    refused(tmp_path, "there is no such file")
    path.write_bytes(b"")
    refused(path, "it is empty")
    path.write_text("not a MATLAB file at all, but long enough for its header" * 9)
    refused(path, "it has no header of a MATLAB file")
    scipy.io.savemat(path, {"x": np.ones((2, 2))}, format="4")
    refused(path, "it has no header of a MATLAB file")
    with pytest.raises(CheckpointError):
        read_matlab("null\0byte.mat", ("net",))


@pytest.mark.parametrize("writer", WRITERS)
def test_truncated_files(tmp_path: Path, writer: str) -> None:
    path = write(tmp_path / "net.mat", small_network().tree(), writer)
    content = path.read_bytes()
    for keep in np.linspace(0, len(content) - 1, 12).astype(int):
        path.write_bytes(content[:keep])
        refused(path, "cannot be read as a MATLAB file")


@pytest.mark.parametrize("writer", ["v5", "v7.3"])
def test_deep_values(tmp_path: Path, writer: str) -> None:
    value: Any = np.ones((1, 1))
    for _ in range(60):
        value = [value]
    refused(write(tmp_path / "net.mat", {"layers": value}, writer), "nested deeper")


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


def test_a_bomb_in_another_variable_is_not_inflated(tmp_path: Path) -> None:
    path = write(tmp_path / "net.mat", small_network().tree(), "v5_compressed")
    bomb = _matrix(7, [50_000_000, 1], b"state", _zeros(50_000_000))
    path.write_bytes(path.read_bytes() + _element(15, zlib.compress(bomb, 1)))
    tracemalloc.start()
    assert len(read_matlab(path, ("net",))["net"]["layers"]) == 5
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
    ]:
        path.write_bytes(_HEADER + body)
        refused(path, reason)


def test_what_has_no_value_here_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    sparse = scipy.sparse.csc_array(np.eye(3))
    scipy.io.savemat(path, {"net": {"c": [[1j]], "s": sparse, "n": [[1]]}})
    net = read_matlab(path, ("net",))["net"]
    assert net["c"] is net["s"] is None
    assert net["n"] == 1
    for class_number in (17, 16):  # Objects and functions.
        body = _element(1, b"MCOS") + _element(1, b"DagNN")
        path.write_bytes(_HEADER + _matrix(class_number, [1, 1], b"net", body))
        assert read_matlab(path, ("net",))["net"] is None
        with pytest.raises(CheckpointError, match=r"save `net.saveobj\(\)`"):
            read_matconvnet(path)


def _hdf5(path: Path, make: Callable[[h5py.Group], Any]) -> Path:
    """A file of version 7.3 with a network whose `meta` is made anew."""
    write_v73(path, {"net": small_network().tree()})
    with h5py.File(path, "r+") as file:
        del file["net/meta"]
        make(file["net"])
    return path


def _single(group: h5py.Group, name: str = "meta", **options: Any) -> h5py.Dataset:
    item = group.create_dataset(name, **options)
    item.attrs["MATLAB_class"] = np.bytes_("single")
    return item


def _bomb(group: h5py.Group) -> None:
    """A chunk that inflates to 300 MB in place of its 4 kB."""
    item = _single(group, shape=(1024,), dtype="f4", chunks=(1024,), compression="gzip")
    item.id.write_direct_chunk((0,), zlib.compress(bytes(300_000_000), 1))


def _mostly_missing(group: h5py.Group) -> None:
    _single(group, shape=(2**22,), dtype="f4", chunks=(2**12,))[0] = 1.0


HUGE = {"shape": (2**40,), "dtype": "f4", "chunks": (1024,), "compression": "gzip"}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda g: g.__setitem__("meta", h5py.ExternalLink("/etc/hosts", "x")), "links of a kind"),
        (lambda g: g.__setitem__("meta", g), "part of itself"),
        (
            lambda g: _single(g, shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 16)]),
            "in other files",
        ),
        (lambda g: _single(g, **HUGE), "declares more than"),
        (_mostly_missing, "array without data"),
        (lambda g: _single(g, data=np.ones(9), chunks=(3,), compression="lzf"), "unknown way"),
        (_bomb, "damaged piece"),
    ],
)
def test_hostile_hdf5(tmp_path: Path, make: Callable[[h5py.Group], Any], reason: str) -> None:
    refused(_hdf5(tmp_path / "net.mat", make), reason)


def test_values_with_many_references_are_read_once(tmp_path: Path) -> None:
    def wide(group: h5py.Group) -> None:
        # Cells of a hundred references to the next: a hundred to the tenth power of values.
        target = _single(group, "end", data=np.ones((1, 1), "f4"))
        for name in [*(f"l{level}" for level in range(9)), "meta"]:
            item = group.create_dataset(name, (100, 1), h5py.ref_dtype)
            item.attrs["MATLAB_class"] = np.bytes_("cell")
            item[:] = np.full((100, 1), target.ref, h5py.ref_dtype)
            target = item

    net = read_matlab(_hdf5(tmp_path / "net.mat", wide), ("net",))["net"]
    assert len(net["layers"]) == 5


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "fletcher32": True}])
def test_arrays_in_pieces(tmp_path: Path, options: dict[str, Any]) -> None:
    # Pieces that the shape is no multiple of, in a tree of two levels.
    values = np.random.default_rng(0).normal(size=(3, 130, 70)).astype("f4")
    options = {"data": values, "chunks": (2, 4, 3), "compression": "gzip", **options}
    path = _hdf5(tmp_path / "net.mat", lambda group: _single(group, **options))
    np.testing.assert_array_equal(read_matlab(path, ("net",))["net"]["meta"], values.T)
