"""Checkpoints of MatConvNet: a DagNN in a MATLAB file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_rpe.checkpoints.matlab import read_matlab
from keras_rpe.checkpoints.report import CheckpointError

_WANTED = ("net", "layers", "params", "meta")

Option = str | float | tuple[float, ...]


@dataclass
class MatConvNetLayer:
    """A row of the layer table of a DagNN.

    Attributes:
        name: Its name.
        type: Class of its block, such as "dagnn.Conv".
        inputs: Variables that it takes.
        outputs: Variables that it gives.
        params: Names of its parameters, in the order that its class gives them a meaning.
        block: Options of the block: texts, numbers, and tuples of numbers; others are left out.

    Example:
        >>> from keras_rpe.checkpoints import MatConvNetLayer
        >>> layer = MatConvNetLayer("conv1", "dagnn.Conv", ["data"], ["x1"], ["conv1_f"])
        >>> layer.kind
        'Conv'
    """

    name: str
    type: str
    inputs: list[str]
    outputs: list[str]
    params: list[str] = field(default_factory=list)
    block: dict[str, Option] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The type without the name of its package."""
        return self.type.rpartition(".")[2]


@dataclass
class MatConvNetNetwork:
    """The layers and the parameters of a DagNN.

    Attributes:
        layers: The layers in the order of the file.
        params: float32 arrays by name. Filters are `(H, W, in, out)`, biases and gains `(C,)`, and
            moments `(C, 2)`: the mean and the square root of the variance plus epsilon.
        average_image: What is subtracted from images, `(3,)` or `(H, W, 3)`, or `None`.

    Example:
        >>> from keras_rpe.checkpoints import MatConvNetNetwork
        >>> MatConvNetNetwork().average_image is None
        True
    """

    layers: list[MatConvNetLayer] = field(default_factory=list)
    params: dict[str, np.ndarray] = field(default_factory=dict)
    average_image: np.ndarray | None = None


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
        CheckpointError: If the file is of another kind, damaged, or too large.

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
    variables = read_matlab(path, _WANTED)
    try:
        return _network(variables)
    except CheckpointError as error:
        raise CheckpointError(
            f"`path` must be a MATLAB file with a network of MatConvNet, but {error}. "
            f"Received: path={os.fspath(path)!r}"
        ) from None


def _network(variables: dict[str, Any]) -> MatConvNetNetwork:
    if "net" in variables:
        variables = variables["net"]
        if not isinstance(variables, dict):
            raise CheckpointError(
                "`net` is not a struct: of an object, save `net.saveobj()` in MATLAB in its place"
            )
    layers, params = _rows(variables.get("layers")), _rows(variables.get("params"))
    if layers is None or params is None:
        raise CheckpointError("it has no structs `layers` and `params`")
    network = MatConvNetNetwork([_layer(row) for row in layers], _params(params))
    for layer in network.layers:
        _shape_params(layer, network.params)
    network.average_image = _average_image(variables.get("meta"))
    return network


def _rows(table: Any) -> list[dict[str, Any]] | None:
    rows = [table] if isinstance(table, dict) else table
    is_table = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return rows if is_table else None


def _layer(row: dict[str, Any]) -> MatConvNetLayer:
    block = row.get("block")
    plain = {name: _option(value) for name, value in (_rows(block) or [{}])[0].items()}
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


def _params(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    params: dict[str, np.ndarray] = {}
    for row in rows:
        name, value = _text(row, "name"), row.get("value")
        if name in params:
            raise CheckpointError(f"it has two parameters of the name {name!r}")
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"the parameter {name!r} is not an array of numbers")
        params[name] = _finite(value, f"the parameter {name!r}")
    return params


def _finite(value: np.ndarray, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        value = np.asarray(value, "float32")
    if not np.isfinite(value).all():
        raise CheckpointError(f"{what} has values that float32 does not have")
    return value


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
    if layer.kind == "ConvTranspose":
        return
    filters = int(layer.kind == "Conv")
    channels = [params[name].shape[-1] for name in layer.params[:filters]]
    channels += [params[name].shape[0] for name in layer.params[filters:]]
    if len(set(channels)) > 1:
        raise CheckpointError(
            f"the parameters of the layer {layer.name!r} are of {channels} channels"
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
    normalization = meta.get("normalization") if isinstance(meta, dict) else None
    image = normalization.get("averageImage") if isinstance(normalization, dict) else None
    if not isinstance(image, np.ndarray) or image.size == 0:
        return None
    if image.size != 3 and (image.ndim != 3 or image.shape[2] != 3):
        raise CheckpointError(f"its average image has the shape {image.shape}")
    image = _finite(image, "its average image")
    return image.ravel() if image.size == 3 else image
