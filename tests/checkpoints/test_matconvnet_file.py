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
from checkpoints.matconvnet_fixtures import (
    SUFFIXES,
    WRITERS,
    Dagnn,
    StructArray,
    put,
    small_network,
    write,
    write_v73,
)

from keras_rpe.checkpoints import CheckpointError, read_matconvnet

MAX_BYTES = 200 << 20
_HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("suffixes", SUFFIXES)
def test_every_variant(
    tmp_path: Path, suffixes: str, writer: str, nested: bool, snapshot: bool
) -> None:
    net = small_network(suffixes)
    network = read_matconvnet(write(tmp_path / "net.mat", net.tree(), writer, nested, snapshot))
    assert [layer.name for layer in network.layers] == [row["name"] for row in net.layers]
    assert [layer.kind for layer in network.layers] == ["Conv", "BatchNorm", "ReLU", "Conv", "Loss"]
    assert list(network.params) == [row["name"] for row in net.params]
    for row in net.params:
        stored = network.params[row["name"]]
        assert stored.dtype == "float32"
        np.testing.assert_array_equal(stored.ravel(), row["value"].ravel())
    conv, norm, _, out, loss = network.layers
    assert loss.inputs == ["out", "label"]
    assert loss.block["loss"] == "softmaxlog"
    assert conv.block["size"] == (3.0, 3.0, 3.0, 8.0)
    assert conv.block["hasBias"] == 0.0
    assert norm.block["epsilon"] == 1e-5
    shapes = [[network.params[name].shape for name in layer.params] for layer in (conv, norm, out)]
    assert shapes == [[(3, 3, 3, 8)], [(8,), (8,), (8, 2)], [(1, 1, 8, 1), (1,)]]
    np.testing.assert_allclose(network.average_image, [123.68, 116.779, 103.939], rtol=1e-6)


@pytest.mark.parametrize("writer", WRITERS)
def test_values_keep_their_places(tmp_path: Path, writer: str) -> None:
    net = small_network()
    net.average_image = np.random.default_rng(0).random((4, 5, 3))
    network = read_matconvnet(write(tmp_path / "net.mat", net.tree(), writer))
    np.testing.assert_array_equal(network.params["conv1_f"], net.params[0]["value"])
    moments = next(row["value"] for row in net.params if row["name"] == "conv1_bn_m")
    np.testing.assert_array_equal(network.params["conv1_bn_m"], moments)
    assert network.average_image is not None
    np.testing.assert_allclose(network.average_image, net.average_image, rtol=1e-6)


@pytest.mark.parametrize("writer", WRITERS)
def test_one_channel_and_one_layer(tmp_path: Path, writer: str) -> None:
    net = Dagnn()
    net.norm("bn", net.conv("conv", "x", (3, 3, 1, 1), bias=True), 1)
    network = read_matconvnet(write(tmp_path / "net.mat", net.tree(), writer))
    shapes = {name: array.shape for name, array in network.params.items()}
    assert shapes == {
        "conv_f": (3, 3, 1, 1),
        "conv_b": (1,),
        "bn_w": (1,),
        "bn_b": (1,),
        "bn_m": (1, 2),
    }
    net = Dagnn()
    net.conv("conv", "x", (3, 3, 2, 1))
    network = read_matconvnet(write(tmp_path / "net.mat", net.tree(), writer))
    assert network.params["conv_f"].shape == (3, 3, 2, 1)
    assert network.average_image is None


def test_numbers_stored_as_small_integers(tmp_path: Path) -> None:
    # MATLAB stores doubles that are whole in fewer bytes.
    net = small_network()
    net.params[0]["value"] = np.arange(216).reshape(3, 3, 3, 8).astype("uint8")
    network = read_matconvnet(write(tmp_path / "net.mat", net.tree(), "v5"))
    assert network.params["conv1_f"].dtype == "float32"
    assert network.params["conv1_f"][2, 2, 2, 7] == 215.0


def _broken(change: Callable[[Dagnn], Any]) -> dict[str, Any]:
    net = small_network()
    change(net)
    return net.tree()


@pytest.mark.parametrize("writer", ["v5", "v7.3"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda net: net.params[0].update(value=np.ones((3, 3, 3, 7), "f4")), r"\(3, 3, 3, 7\) in"),
        (lambda net: net.params[1].update(value=np.ones((7, 1), "f4")), r"of \[7, 8, 8\] channels"),
        (lambda net: net.params[3].update(value=np.ones((3, 3), "f4")), r"\(3, 3\) in place of"),
        (lambda net: net.params[5].update(value=np.ones((1, 4), "f4")), "4 biases for 1 filters"),
        (lambda net: net.params[2].update(value=np.full((8, 1), np.nan)), "not finite"),
        (lambda net: net.params[2].update(value=np.full((8, 1), 1e300)), "beyond those of float32"),
        (lambda net: net.params[2].update(value="text"), "is not an array of numbers"),
        (lambda net: net.params[2].update(name="conv1_f"), "two parameters of the name 'conv1_f'"),
        (lambda net: net.params[2].update(name=np.ones((1, 1))), "no text `name`"),
        (lambda net: net.params.pop(2), "lacks its parameter 'conv1_bn_b'"),
        (lambda net: net.layers[0].update(type=["a"]), "no text `type`"),
        (lambda net: net.layers[0].update(inputs=np.ones((2, 2))), "`inputs` of a layer are not"),
        (
            lambda net: net.layers[0]["block"].update(size=np.array([[1e18, 1e18, 1e18, 1e18]])),
            "has filters of the size",
        ),
        (lambda net: setattr(net, "average_image", np.ones((2, 2))), "average image has the shape"),
    ],
)
def test_networks_that_make_no_sense(
    tmp_path: Path, writer: str, change: Callable[[Dagnn], Any], reason: str
) -> None:
    path = write(tmp_path / "net.mat", _broken(change), writer)
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_matconvnet(path)
    assert str(caught.value).startswith("`path` must be a MATLAB file with a network of MatConvNet")
    assert "\n" not in str(caught.value)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "text.mat").write_text(
        "not a MATLAB file at all, but long enough for its header" * 9
    )
    (tmp_path / "empty.mat").write_bytes(b"")
    scipy.io.savemat(tmp_path / "v4.mat", {"x": np.ones((2, 2))}, format="4")
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.ones((2, 2))})
    scipy.io.savemat(tmp_path / "array.mat", {"net": np.ones((2, 2))})
    reasons = {
        "missing.mat": "there is no such file",
        ".": "there is no such file",
        "text.mat": "it has no header of a MATLAB file",
        "empty.mat": "it has no header of a MATLAB file",
        "v4.mat": "it has no header of a MATLAB file",
        "other.mat": "it has no structs `layers` and `params`",
        "array.mat": "`net` is not a struct",
    }
    for name, reason in reasons.items():
        with pytest.raises(CheckpointError, match=reason):
            read_matconvnet(tmp_path / name)
    with pytest.raises(CheckpointError):
        read_matconvnet("null\0byte.mat")


@pytest.mark.parametrize("writer", WRITERS)
def test_truncated_files(tmp_path: Path, writer: str) -> None:
    content = write(tmp_path / "net.mat", small_network().tree(), writer).read_bytes()
    path = tmp_path / "short.mat"
    for keep in np.linspace(0, len(content) - 1, 97).astype(int):
        path.write_bytes(content[:keep])
        with pytest.raises(CheckpointError) as caught:
            read_matconvnet(path)
        assert "\n" not in str(caught.value)


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def _matrix(class_number: int, dims: list[int], name: bytes, body: bytes) -> bytes:
    flags = _element(6, struct.pack("<II", class_number, 0))
    shape = b"" if class_number == 17 else _element(5, np.array(dims, "<i4").tobytes())
    return _element(14, flags + shape + _element(1, name) + body)


def _refused(path: Path, reason: str) -> None:
    """Refused with one sentence, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=reason) as caught:
            read_matconvnet(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < MAX_BYTES


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
        _refused(path, "it declares more than the")


def test_a_bomb_behind_another_value(tmp_path: Path) -> None:
    # The matrix is longer than the value in it, and the rest would be passed over.
    head = _matrix(7, [1, 1], b"net", _element(7, struct.pack("<f", 1.0)))[8:]
    matrix = struct.pack("<II", 14, 2**31) + head + bytes(150_000_000)
    path = tmp_path / "bomb.mat"
    path.write_bytes(_HEADER + _element(15, zlib.compress(matrix, 1)))
    _refused(path, "it declares more than the")


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
        _refused(path, reason)


def test_deep_values(tmp_path: Path) -> None:
    value: Any = np.ones((1, 1))
    for _ in range(60):
        value = [value]
    for writer in ("v5", "v7.3"):
        path = write(tmp_path / "net.mat", {"layers": value, "params": value}, writer)
        _refused(path, "nested deeper")


@pytest.mark.parametrize(("class_number", "kind"), [(17, "an object"), (16, "a function")])
def test_objects_and_functions_are_passed_over(
    tmp_path: Path, class_number: int, kind: str
) -> None:
    path = tmp_path / "net.mat"
    matrix = _matrix(class_number, [1, 1], b"net", _element(1, b"MCOS") + _element(1, b"DagNN"))
    path.write_bytes(_HEADER + matrix)
    _refused(path, rf"`net` is {kind}: save `net.saveobj\(\)`")


def _hdf5(path: Path, make: Callable[[h5py.File], Any], **options: Any) -> Path:
    """A file of version 7.3 with a network, after what `make` does to it."""
    write_v73(path, {"net": small_network().tree()})
    with h5py.File(path, "r+", **options) as file:
        make(file)
    return path


def _replace(make: Callable[[h5py.Group], Any]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["net/meta"]
        make(file["net"])

    return change


def _single(group: h5py.Group, **options: Any) -> None:
    group.create_dataset("meta", **options).attrs["MATLAB_class"] = np.bytes_("single")


def _mostly_missing(group: h5py.Group, **options: Any) -> None:
    _single(group, shape=(2**22,), dtype="f4", **options)
    group["meta"][0] = 1.0


def _virtual(group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    item = group.create_virtual_dataset("meta", layout)
    item.attrs["MATLAB_class"] = np.bytes_("single")


def _cycle(group: h5py.Group) -> None:
    item = group.create_dataset("meta", (1, 1), h5py.ref_dtype)
    item.attrs["MATLAB_class"] = np.bytes_("cell")
    item[0, 0] = item.ref


def _wide(group: h5py.Group) -> None:
    """Cells of a hundred references to the next one: a hundred to the tenth power of values."""
    target = group.create_dataset("end", data=np.ones((1, 1), "f4"))
    target.attrs["MATLAB_class"] = np.bytes_("single")
    for level in range(10):
        item = group.create_dataset("meta" if level == 9 else f"l{level}", (100, 1), h5py.ref_dtype)
        item.attrs["MATLAB_class"] = np.bytes_("cell")
        item[:] = np.full((100, 1), target.ref, h5py.ref_dtype)
        target = item


def _object(group: h5py.Group) -> None:
    del group.file["net"]
    item = group.file.create_dataset("net", data=np.ones((1, 6), "uint32"))
    item.attrs["MATLAB_class"] = np.bytes_("dagnn.DagNN")
    item.attrs["MATLAB_object_decode"] = np.int32(3)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda g: g.__setitem__("meta", h5py.ExternalLink("/etc/hosts", "x")),
            "links of a kind",
        ),
        (lambda g: g.__setitem__("meta", h5py.SoftLink("/net")), "links of a kind"),
        (lambda g: g.__setitem__("meta", g), "part of itself"),
        (_virtual, "of a kind that MATLAB does not write"),
        (
            lambda g: _single(g, shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 16)]),
            "in other files",
        ),
        (
            lambda g: _single(g, shape=(2**40,), dtype="f4", chunks=(1024,), compression="gzip"),
            "declares more than",
        ),
        (
            lambda g: _single(g, shape=(2**22,), dtype="f4", chunks=(2**10,), compression="gzip"),
            "array without data",
        ),
        (
            lambda g: _mostly_missing(g, chunks=(1,)),
            "declares more than the 200000 values",
        ),
        (lambda g: _mostly_missing(g, chunks=(2**12,)), "array without data"),
        (lambda g: _single(g, shape=(2**22,), dtype="f4"), "array without data"),
        (
            lambda g: _single(g, data=np.zeros(2**25, "f4"), compression="gzip", chunks=(2**22,)),
            "declares more than",
        ),
        (_cycle, "part of itself"),
        (_object, r"`net` is an object or a sparse array: save `net.saveobj\(\)`"),
    ],
)
def test_hostile_hdf5(tmp_path: Path, make: Callable[[h5py.Group], Any], reason: str) -> None:
    _refused(_hdf5(tmp_path / "net.mat", _replace(make)), reason)


def test_values_with_many_references_are_read_once(tmp_path: Path) -> None:
    assert len(read_matconvnet(_hdf5(tmp_path / "net.mat", _replace(_wide))).layers) == 5


def test_hdf5_that_matlab_does_not_write(tmp_path: Path) -> None:
    path = tmp_path / "net.mat"
    with h5py.File(path, "w", libver="latest") as file:
        put(file, "net", small_network().tree())
    _refused(path, "HDF5 of a version that MATLAB does not write")


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"fletcher32": True}])
def test_arrays_in_pieces(tmp_path: Path, options: dict[str, Any]) -> None:
    # Pieces that the shape is no multiple of, in a tree of two levels.
    values = np.random.default_rng(0).normal(size=(3, 130, 70)).astype("f4")

    def change(group: h5py.Group) -> None:
        normalization = group.create_group("meta").create_group("normalization")
        item = normalization.create_dataset(
            "averageImage", data=values, chunks=(2, 4, 3), compression="gzip", **options
        )
        item.attrs["MATLAB_class"] = np.bytes_("single")

    network = read_matconvnet(_hdf5(tmp_path / "net.mat", _replace(change)))
    np.testing.assert_array_equal(network.average_image, values.T)


def test_many_variables_beside_the_network(tmp_path: Path) -> None:
    path = tmp_path / "net.mat"
    variables = {f"x{i:04}": np.full((1, 1), i) for i in range(600)}
    write_v73(path, {**variables, "net": small_network().tree(), "z": StructArray([{"a": "b"}])})
    assert len(read_matconvnet(path).layers) == 5
