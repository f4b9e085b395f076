"""Networks of MatConvNet in files as MATLAB writes them, version 5 and 7.3."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from keras_rpe.checkpoints import MatConvNetLayer, MatConvNetNetwork

# How the checkpoints of the paper and of MatConvNet's importers name filter and bias, and gain,
# bias and moments.
SUFFIXES = {
    "short": (("_f", "_b"), ("_w", "_b", "_m")),
    "long": (("filter", "bias"), ("_mult", "_bias", "_moments")),
    "gain": (("_filter", "_bias"), ("_g", "_b", "_m")),
}
_NUMBERS = itertools.count()
WRITERS = ("v5", "v5_compressed", "v7.3")


class StructArray(list):
    """Dictionaries that are the elements of one MATLAB struct array."""


class Dagnn:
    """A network that grows layer by layer, with random parameters, as a MATLAB tree."""

    def __init__(self, suffixes: str = "short", seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.layers = StructArray()
        self.params = StructArray()
        self.average_image: np.ndarray | None = None
        self._conv, self._norm = SUFFIXES[suffixes]

    def add(self, kind: str, name: str, source: str | list[str], **block: Any) -> str:
        params = block.pop("params", [])
        inputs = [source] if isinstance(source, str) else source
        values = {
            key: value if isinstance(value, str) else np.atleast_2d(np.asarray(value, "float64"))
            for key, value in block.items()
        }
        self.layers.append(
            {
                "name": name,
                "type": f"dagnn.{kind}",
                "inputs": inputs,
                "outputs": [name],
                "params": [param for param, _ in params],
                "block": {**values, "opts": ["cuDNN"]},
            }
        )
        for param, value in params:
            value = value.astype("float32")
            self.params.append({"name": param, "value": value, "learningRate": np.ones((1, 1))})
        return name

    def conv(
        self, name: str, source: str, size: tuple[int, ...], stride: int = 1, bias: bool = False
    ) -> str:
        filters = self.random.normal(0, np.sqrt(2 / np.prod(size[:3])), size)
        params = [(name + self._conv[0], filters)]
        if bias:
            params.append((name + self._conv[1], self.random.normal(0, 0.1, (1, size[3]))))
        pad = (size[0] - 1) // 2
        options: dict[str, Any] = {"size": size, "hasBias": float(bias), "stride": [stride] * 2}
        options |= {"pad": [pad] * 4, "dilate": [1, 1]}
        return self.add("Conv", name, source, params=params, **options)

    def norm(self, name: str, source: str, channels: int) -> str:
        gain = self.random.uniform(0.8, 1.2, (channels, 1))
        bias = self.random.normal(0, 0.1, (channels, 1))
        mean = self.random.normal(0, 0.1, (channels, 1))
        moments = np.concatenate([mean, self.random.uniform(0.8, 1.2, (channels, 1))], axis=1)
        params = list(zip([name + suffix for suffix in self._norm], [gain, bias, moments]))
        return self.add("BatchNorm", name, source, params=params, epsilon=1e-5)

    def tree(self) -> dict[str, Any]:
        meta: dict[str, Any] = {"inputSize": np.zeros((0, 0))}
        if self.average_image is not None:
            meta["normalization"] = {"averageImage": self.average_image}
        return {"layers": self.layers, "params": self.params, "meta": meta}


def write(
    path: Path, net: dict[str, Any], writer: str, nested: bool = True, snapshot: bool = False
) -> Path:
    """Write a network as the variable `net` or at the top level, alone or with its training."""
    variables = {"net": net} if nested else dict(net)
    if snapshot:
        momentum = [np.zeros((4, 4), "float32")] * 3
        variables["stats"] = {"train": StructArray([{"objective": np.ones((1, 1))}] * 2)}
        variables["state"] = {"momentum": momentum}
    if writer == "v7.3":
        write_v73(path, variables)
    else:
        scipy.io.savemat(
            path,
            {name: _for_scipy(value) for name, value in variables.items()},
            do_compression=writer == "v5_compressed",
            long_field_names=True,
        )
    return path


def _squeezed(array: np.ndarray) -> np.ndarray:
    """MATLAB keeps no dimension of 1 at the end beyond the second."""
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _for_scipy(value: Any) -> Any:
    if isinstance(value, StructArray):
        names = list(value[0])
        array = np.empty((1, len(value)), [(name, object) for name in names])
        for index, element in enumerate(value):
            for name in names:
                array[name][0, index] = _for_scipy(element[name])
        return array
    if isinstance(value, dict):
        return {name: _for_scipy(part) for name, part in value.items()}
    if isinstance(value, list):
        cell = np.empty((1, len(value)), object)
        for index, part in enumerate(value):
            cell[0, index] = _for_scipy(part)
        return cell
    return _squeezed(value) if isinstance(value, np.ndarray) else value


def write_v73(path: Path, variables: dict[str, Any]) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            put(file, name, value)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(header)


def put(group: h5py.Group, name: str, value: Any) -> None:
    """Write a value as MATLAB 7.3 does, with cells and struct arrays as references."""
    if isinstance(value, StructArray) and len(value) == 1:
        value = value[0]
    if isinstance(value, StructArray):
        struct = _classed(group.create_group(name), "struct")
        for field in value[0]:
            _put_references(struct, field, [element[field] for element in value])
    elif isinstance(value, dict):
        struct = _classed(group.create_group(name), "struct")
        for field, part in value.items():
            put(struct, field, part)
    elif isinstance(value, list) and value:
        _classed(_put_references(group, name, value), "cell")
    elif isinstance(value, str) and value:
        codes = np.frombuffer(value.encode("utf-16-le"), "uint16").reshape(-1, 1)
        item = _classed(group.create_dataset(name, data=codes), "char")
        item.attrs["MATLAB_int_decode"] = np.int32(2)
    elif len(value) == 0 or value.size == 0:
        item = group.create_dataset(name, data=np.zeros(2, "uint64"))
        kind = {str: "char", list: "cell"}.get(type(value), "double")
        _classed(item, kind).attrs["MATLAB_empty"] = np.uint8(1)
    else:
        array = _squeezed(value)
        large = {"chunks": True, "compression": "gzip"} if array.size > 500 else {}
        kinds = {"float32": "single", "float64": "double"}
        item = group.create_dataset(name, data=array.T, **large)
        _classed(item, kinds.get(array.dtype.name, array.dtype.name))


def _classed(item: Any, name: str) -> Any:
    item.attrs["MATLAB_class"] = np.bytes_(name)
    return item


def _put_references(group: h5py.Group, name: str, values: list[Any]) -> h5py.Dataset:
    store = group.file.require_group("#refs#")
    names = []
    for value in values:
        names.append(f"r{next(_NUMBERS)}")
        put(store, names[-1], value)
    references = np.array([[store[n].ref] for n in names], h5py.ref_dtype)
    return group.create_dataset(name, data=references, dtype=h5py.ref_dtype)


def small_network(suffixes: str = "short") -> Dagnn:
    """Two convolutions, one with a bias and filters of one channel, and a normalisation."""
    net = Dagnn(suffixes)
    x = net.conv("conv1", "input", (3, 3, 3, 8))
    x = net.norm("conv1_bn", x, 8)
    x = net.add("ReLU", "relu1", x)
    net.conv("out", x, (1, 1, 8, 1), bias=True)
    net.add("Loss", "objective", ["out", "label"], loss="softmaxlog")
    net.average_image = np.array([123.68, 116.779, 103.939]).reshape(1, 1, 3)
    return net


def as_network(net: Dagnn) -> MatConvNetNetwork:
    """The network that reading a file of it gives."""
    layers = []
    params = {row["name"]: row["value"] for row in net.params}
    for row in net.layers:
        block = {
            key: value if isinstance(value, str) else tuple(value.ravel().tolist())
            for key, value in row["block"].items()
            if not isinstance(value, list)
        }
        block = {key: v[0] if len(v) == 1 else v for key, v in block.items()}
        names = [row[key] for key in ("name", "type", "inputs", "outputs", "params")]
        layers.append(MatConvNetLayer(*names, block))
        for place, name in enumerate(row["params"]):
            if (row["type"] == "dagnn.BatchNorm" and place < 2) or (place == 1):
                params[name] = params[name].ravel()
    average = net.average_image
    return MatConvNetNetwork(layers, params, None if average is None else average.ravel())


def digits_dagnn(suffixes: str = "short") -> Dagnn:
    """The network of the digits tutorial with its last layer and an objective."""
    net = Dagnn(suffixes)
    x = _unit(net, "conv1", "input", (3, 3, 3, 32))
    x = net.add("ReLU", "conv1_relu", x)
    channels = 32
    for stage in range(2, 6):
        for block in range(1, 4):
            x = _bottleneck(net, f"conv{stage}_{block}", x, channels, 2 ** (stage + 2))
            channels = 2 ** (stage + 4)
    net.conv("res6_conv", x, (3, 3, 512, 3), bias=True)
    net.add("L2normalization", "res7_l2norm", "res6_conv")
    net.average_image = np.array([0.0717, 0.0820, 0.0715]).reshape(1, 1, 3)
    return net


def _unit(net: Dagnn, name: str, source: str, size: tuple[int, ...], stride: int = 1) -> str:
    return net.norm(f"{name}_bn", net.conv(f"{name}_conv", source, size, stride), size[3])


def _bottleneck(
    net: Dagnn, name: str, source: str, channels: int, width: int, stride: int = 1
) -> str:
    shortcut = source
    if channels != 4 * width:
        size = (1, 1, channels, 4 * width)
        shortcut = _unit(net, f"{name}_adapt_conv", source, size, stride)
    x = _unit(net, f"{name}a", source, (1, 1, channels, width), stride)
    x = net.add("ReLU", f"{name}a_relu", x)
    x = _unit(net, f"{name}b", x, (3, 3, width, width))
    x = net.add("ReLU", f"{name}b_relu", x)
    x = _unit(net, f"{name}c", x, (1, 1, width, 4 * width))
    x = net.add("Sum", f"{name}_sum", [shortcut, x])
    return net.add("ReLU", f"{name}_relu", x)


def resnet_dagnn(blocks: tuple[int, ...] = (3, 4, 6, 3), stem_bias: bool = True) -> Dagnn:
    """A ResNet of bottlenecks with the strides of the first release, and its class scores."""
    net = Dagnn("gain")
    x = net.conv("conv1", "data", (7, 7, 3, 64), stride=2, bias=stem_bias)
    x = net.norm("bn_conv1", x, 64)
    x = net.add("ReLU", "conv1_relu", x)
    # Padded on all sides, as Keras does; MatConvNet's own begin one pixel further.
    x = net.add("Pooling", "pool1", x, poolSize=[3, 3], stride=[2, 2], pad=[1, 1, 1, 1])
    channels = 64
    for stage, count in enumerate(blocks, start=2):
        width = 64 * 2 ** (stage - 2)
        for block in range(1, count + 1):
            stride = 2 if block == 1 and stage > 2 else 1
            x = _bottleneck(net, f"res{stage}_{block}", x, channels, width, stride)
            channels = 4 * width
    net.conv("fc", x, (1, 1, channels, 10), bias=True)
    net.average_image = np.array([123.68, 116.779, 103.939]).reshape(1, 1, 3)
    return net
