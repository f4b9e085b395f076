"""Checkpoints of MatConvNet: a DagNN in a MATLAB file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.damage import DAMAGE
from keras_rpe.checkpoints.hdf5_file import SIGNATURE
from keras_rpe.checkpoints.matconvnet_layer import MatConvNetLayer, Option
from keras_rpe.checkpoints.matconvnet_network import MatConvNetNetwork
from keras_rpe.checkpoints.matlab5_file import read_matlab5
from keras_rpe.checkpoints.matlab73_file import read_matlab73
from keras_rpe.checkpoints.matlab_struct import MatlabStruct, UnreadValue
from keras_rpe.checkpoints.reading_budget import ReadingBudget

_WANTED = ("net", "layers", "params", "meta")
_USER_BLOCK = 512


def read_matconvnet(path: str | os.PathLike[str]) -> MatConvNetNetwork:
    """Read a network that MatConvNet saved, of version 5 (`-v6`, `-v7`) or 7.3.

    The network may be the variable `net`, as in the snapshots of a training, or lie at the top
    level of the file. What the parameters of a layer mean follows from their order, so that their
    names may be any: filter and bias of a `Conv`; gain, bias and moments of a `BatchNorm`. Shapes
    are those of the layer, for MATLAB drops dimensions of 1 at the end. Vedaldi & Lenc,
    "MatConvNet", ACM Multimedia 2015.

    Nothing of the file is executed, and sizes are checked before they are allocated: at most
    512 MiB are read, and at most twenty times the size of the file and 64 MiB.

    Args:
        path: Path of the file.

    Returns:
        The network.

    Raises:
        CheckpointError: If it is no such file, damaged, or too large.

    Example:
        >>> import pathlib, tempfile
        >>> import scipy.io
        >>> from keras_rpe.checkpoints import read_matconvnet
        >>> layer = {"name": "conv1", "type": "dagnn.Conv", "inputs": "x", "outputs": "y"}
        >>> layer |= {"params": "f", "block": {"size": [3.0, 3.0, 2.0, 1.0]}}
        >>> param = {"name": "f", "value": np.ones((3, 3, 2), "float32")}
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "network.mat"
        >>> scipy.io.savemat(path, {"net": {"layers": layer, "params": param}})
        >>> network = read_matconvnet(path)
        >>> network.layers[0].name, network.params["f"].shape
        ('conv1', (3, 3, 2, 1))
    """
    try:
        if not Path(path).is_file():
            raise CheckpointError("there is no such file")
        with Path(path).open("rb") as file:
            return _network(_variables(file, os.fstat(file.fileno()).st_size))
    except DAMAGE as error:
        reason = str(error) if isinstance(error, CheckpointError) else "it is damaged"
        # The cause is of no use where the bytes have none of the meaning that was sought in them.
        raise CheckpointError(
            f"`path` must be a MATLAB file with a network of MatConvNet, but {reason}. "
            f"Received: path={str(path)!r}"
        ) from None


def _variables(file: BinaryIO, size: int) -> dict[str, Any]:
    budget = ReadingBudget(size)
    start = file.read(_USER_BLOCK + len(SIGNATURE))
    is_hdf5 = start.startswith(SIGNATURE) or start[_USER_BLOCK:] == SIGNATURE
    read = read_matlab73 if is_hdf5 else read_matlab5
    return read(file, size, _WANTED, budget)


def _network(variables: dict[str, Any]) -> MatConvNetNetwork:
    if "net" in variables:
        net = variables["net"]
        if isinstance(net, UnreadValue):
            raise CheckpointError(
                f"`net` is {net.kind}: save `net.saveobj()` of it in MATLAB in its place"
            )
        if not isinstance(net, MatlabStruct) or net.size != 1:
            raise CheckpointError("`net` is not a struct")
        variables = {name: net.get(name) for name in _WANTED}
    layers, params = variables.get("layers"), variables.get("params")
    if not isinstance(layers, MatlabStruct) or not isinstance(params, MatlabStruct):
        raise CheckpointError("it has no structs `layers` and `params`")
    network = MatConvNetNetwork([_layer(row) for row in layers.elements()], _params(params))
    for layer in network.layers:
        _shape_params(layer, network.params)
    network.average_image = _average_image(variables.get("meta"))
    return network


def _layer(row: dict[str, Any]) -> MatConvNetLayer:
    block = row.get("block")
    options = next(iter(block.elements()), {}) if isinstance(block, MatlabStruct) else {}
    plain = {name: _option(value) for name, value in options.items()}
    return MatConvNetLayer(
        _text(row, "name"),
        _text(row, "type"),
        _texts(row, "inputs"),
        _texts(row, "outputs"),
        _texts(row, "params"),
        {name: value for name, value in plain.items() if value is not None},
    )


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise CheckpointError(f"a layer or a parameter has no text `{name}`")
    return value


def _texts(row: dict[str, Any], name: str) -> list[str]:
    value = row.get(name)
    value = [value] if isinstance(value, str) and value else value
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    if value is None or (isinstance(value, (str, np.ndarray)) and len(value) == 0):
        return []
    raise CheckpointError(f"the `{name}` of a layer are not texts")


def _option(value: Any) -> Option | None:
    if isinstance(value, str):
        return value
    if not isinstance(value, np.ndarray) or value.size > 64:
        return None
    numbers = tuple(float(number) for number in value.ravel(order="F"))
    return numbers[0] if len(numbers) == 1 else numbers


def _params(table: MatlabStruct) -> dict[str, np.ndarray]:
    params: dict[str, np.ndarray] = {}
    for row in table.elements():
        name, value = _text(row, "name"), row.get("value")
        if name in params:
            raise CheckpointError(f"it has two parameters of the name {name!r}")
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"the parameter {name!r} is not an array of numbers")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise CheckpointError(f"the parameter {name!r} has values that are not finite")
        with np.errstate(over="ignore"):
            params[name] = np.asarray(value, "float32")
        if not np.isfinite(params[name]).all():
            raise CheckpointError(f"the parameter {name!r} has values beyond those of float32")
    return params


def _shape_params(layer: MatConvNetLayer, params: dict[str, np.ndarray]) -> None:
    """Give the parameters of a layer the shapes that their places among them ask for."""
    if layer.kind not in ("Conv", "ConvTranspose", "BatchNorm"):
        return
    for place, name in enumerate(layer.params):
        if name not in params:
            raise CheckpointError(f"the layer {layer.name!r} lacks its parameter {name!r}")
        value = params[name]
        if layer.kind == "BatchNorm":
            shape: tuple[int, ...] = (value.size // 2, 2) if place == 2 else (value.size,)
        else:
            shape = _filter_shape(layer, value) if place == 0 else (value.size,)
        if math.prod(shape) != value.size:
            raise CheckpointError(
                f"the parameter {name!r} of the layer {layer.name!r} has the shape {value.shape} "
                f"in place of {shape}"
            )
        params[name] = value.reshape(shape, order="F")
    channels = [params[name].shape[0] for name in layer.params]
    if layer.kind == "BatchNorm" and len(set(channels)) > 1:
        raise CheckpointError(
            f"the parameters of the layer {layer.name!r} are of {channels} channels"
        )
    if layer.kind == "Conv" and len(channels) > 1:
        outputs = params[layer.params[0]].shape[-1]
        if channels[1] != outputs:
            raise CheckpointError(
                f"the layer {layer.name!r} has {channels[1]} biases for {outputs} filters"
            )


def _filter_shape(layer: MatConvNetLayer, value: np.ndarray) -> tuple[int, ...]:
    size = layer.block.get("size")
    if isinstance(size, tuple):
        if len(size) > 4 or any(not 1 <= number <= 2**31 or number % 1 for number in size):
            raise CheckpointError(f"the layer {layer.name!r} has filters of the size {size}")
        shape = tuple(int(number) for number in size)
    else:
        shape = value.shape
    return (*shape, *(1,) * (4 - len(shape)))


def _average_image(meta: Any) -> np.ndarray | None:
    normalization = meta.get("normalization") if isinstance(meta, MatlabStruct) else None
    image = normalization.get("averageImage") if isinstance(normalization, MatlabStruct) else None
    if not isinstance(image, np.ndarray) or image.size == 0:
        return None
    if image.size != 3 and (image.ndim != 3 or image.shape[2] != 3):
        raise CheckpointError(f"its average image has the shape {image.shape}")
    image = np.asarray(image, "float32")
    if not np.isfinite(image).all():
        raise CheckpointError("its average image has values that are not finite")
    return image.ravel() if image.size == 3 else image
