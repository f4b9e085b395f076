from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from checkpoints.matconvnet_fixtures import StructArray, small_network, write_v73
from checkpoints.refusal import refused

from keras_rpe.checkpoints import read_matconvnet


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
        (_virtual, "in other files"),
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
            "array without data",
        ),
        (lambda g: _mostly_missing(g, chunks=(2**12,)), "array without data"),
        (lambda g: _single(g, shape=(2**22,), dtype="f4"), "array without data"),
        (
            lambda g: _single(g, data=np.zeros(2**25, "f4"), compression="gzip", chunks=(2**22,)),
            "declares more than",
        ),
        (_cycle, "part of itself"),
        (_object, r"`net` is an object: save `net.saveobj\(\)`"),
    ],
)
def test_hostile_hdf5(tmp_path: Path, make: Callable[[h5py.Group], Any], reason: str) -> None:
    refused(_hdf5(tmp_path / "net.mat", _replace(make)), reason)


def test_values_with_many_references_are_read_once(tmp_path: Path) -> None:
    assert len(read_matconvnet(_hdf5(tmp_path / "net.mat", _replace(_wide))).layers) == 5


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
