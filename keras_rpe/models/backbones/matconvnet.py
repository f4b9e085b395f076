"""Weights of MatConvNet files into backbones."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import keras
import numpy as np

from keras_rpe.checkpoints import (
    CheckpointError,
    ConversionReport,
    MatConvNetLayer,
    MatConvNetNetwork,
    read_matconvnet,
)


@dataclass(eq=False)
class _Unit:
    """A convolution between two places of the graph, and the normalization after it."""

    name: str
    shape: tuple[int, ...]
    source: int
    output: int
    before: int  # Product of the strides up to its input.
    after: int
    conv: Any
    norm: Any = None


# Layers that leave the place in the graph, whatever they do to the values. Pooling has a stride.
_PASSING = ("ReLU", "Sigmoid", "DropOut", "Pooling", "Crop")


class _Graph:
    """The convolutions of a network and the sums between them.

    Places are numbers: 0 is the image; each convolution gives one, which stays that of its
    normalization and activation, and so does each sum.
    """

    def __init__(self) -> None:
        self.units: list[_Unit] = []
        self.sums: dict[frozenset[int], int] = {}
        self._count = 0
        self._places: dict[Any, tuple[int, int]] = {}
        self._owners: dict[int, _Unit] = {}

    def start(self, key: Any) -> None:
        self._places[key] = 0, 1

    def passes(self, source: Any, key: Any, stride: int = 1) -> None:
        if source in self._places:
            place, reduction = self._places[source]
            self._places[key] = place, reduction * stride

    def add_sum(self, sources: Iterable[Any], key: Any) -> None:
        sources = list(sources)
        if all(source in self._places for source in sources):
            self._count += 1
            self.sums[frozenset(self._places[source][0] for source in sources)] = self._count
            self._places[key] = self._count, self._places[sources[0]][1]

    def add_conv(
        self, source: Any, key: Any, name: str, shape: tuple[int, ...], stride: int, layer: Any
    ) -> None:
        if source in self._places:
            self._count += 1
            place, before = self._places[source]
            unit = _Unit(name, shape, place, self._count, before, before * stride, layer)
            self.units.append(unit)
            self._owners[self._count] = unit
            self._places[key] = self._count, unit.after

    def add_norm(self, source: Any, key: Any, layer: Any) -> None:
        self.passes(source, key)
        unit = self._owners.get(self._places.get(source, (0, 1))[0])
        if unit is not None and unit.norm is None:
            unit.norm = layer


def _keras_graph(model: keras.Model) -> _Graph:
    if not hasattr(model, "operations") or len(model.inputs) != 1:
        raise ValueError(
            "`backbone` must be a functional Keras model with one input. "
            f"Received: {type(model).__name__}"
        )
    graph = _Graph()
    graph.start(id(model.inputs[0]))
    # Parts of the image, such as the channels that a change of their order takes apart.
    image = {id(model.inputs[0])}
    for layer in model.operations:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        sources = [id(tensor) for tensor in keras.tree.flatten(layer.input)]
        outputs = [id(tensor) for tensor in keras.tree.flatten(layer.output)]
        if isinstance(layer, keras.layers.Add):
            graph.add_sum(sources, outputs[0])
        elif isinstance(layer, keras.layers.Conv2D):
            shape = tuple(layer.kernel.shape)
            graph.add_conv(sources[0], outputs[0], layer.name, shape, layer.strides[0], layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            graph.add_norm(sources[0], outputs[0], layer)
        elif all(source in image for source in sources):
            image.update(outputs)
            for output in outputs:
                graph.start(output)
        elif len(sources) == 1 and len(outputs) == 1:
            pool = isinstance(layer, (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D))
            graph.passes(sources[0], outputs[0], layer.strides[0] if pool else 1)
    return graph


def _matconvnet_graph(network: MatConvNetNetwork) -> _Graph:
    graph = _Graph()
    given = {output for layer in network.layers for output in layer.outputs}
    images = [
        layer.inputs[0]
        for layer in network.layers
        if layer.kind == "Conv" and len(layer.inputs) == 1 and layer.inputs[0] not in given
    ]
    if not images:
        raise CheckpointError("The checkpoint has no convolution that takes an image.")
    graph.start(images[0])
    for layer in _ordered(network.layers):
        if len(layer.outputs) != 1 or not layer.inputs:
            continue
        source, output = layer.inputs[0], layer.outputs[0]
        if layer.kind == "Sum":
            graph.add_sum(layer.inputs, output)
        elif layer.kind == "Conv" and layer.params:
            shape = network.params[layer.params[0]].shape
            graph.add_conv(source, output, layer.name, shape, _stride(layer), layer)
        elif layer.kind == "BatchNorm" and len(layer.params) == 3:
            graph.add_norm(source, output, layer)
        elif layer.kind in _PASSING:
            graph.passes(source, output, _stride(layer))
    return graph


def _ordered(layers: list[MatConvNetLayer]) -> list[MatConvNetLayer]:
    """The layers, each after those that it depends on."""
    givers = {output: index for index, layer in enumerate(layers) for output in layer.outputs}
    needs = {
        index: {givers[name] for name in layer.inputs if name in givers}
        for index, layer in enumerate(layers)
    }
    try:
        return [layers[index] for index in TopologicalSorter(needs).static_order()]
    except CycleError:
        raise CheckpointError("The layers of the checkpoint depend on one another.") from None


def _stride(layer: MatConvNetLayer) -> int:
    stride = layer.block.get("stride", 1.0)
    first = stride[0] if isinstance(stride, tuple) and stride else stride
    return int(first) if isinstance(first, float) and 1 <= first <= 64 else 1


def _pixel_transform(
    backbone: keras.Model, conv: Any, average_image: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The affine map (matrix, offset) from what the first convolution gets to what its twin gets.

    The twin in MatConvNet takes RGB minus the average image, in [0, 1] if all of that image is, and
    otherwise in [0, 255]. Without an average image the scale and mean of the backbone are kept.
    """
    # One pixel each of black, red, green and blue; padding before the convolution surrounds them.
    probes = np.concatenate([np.zeros((1, 3)), np.eye(3)]).reshape(4, 1, 1, 3).astype("float32")
    seen = keras.ops.convert_to_numpy(keras.Model(backbone.inputs[0], conv.input)(probes))
    seen = seen[:, seen.shape[1] // 2, seen.shape[2] // 2].astype("float64")
    matrix, offset = (seen[1:] - seen[0]).T, seen[0]
    if matrix.shape != (3, 3) or np.linalg.matrix_rank(matrix) < 3:
        raise ValueError(
            "`backbone` must give all three colors to its first convolution. "
            f"Received: {backbone.name!r}"
        )
    inverse = np.linalg.inv(matrix)
    if average_image is None:
        # The colors in their order, with the deviation and the mean that the backbone gave them.
        order = np.abs(matrix).argmax(axis=0)
        return np.eye(3)[order], np.zeros(3)
    average = average_image.reshape(-1, 3).mean(axis=0)
    scale = 1.0 if np.abs(average_image).max() <= 1.0 else 255.0
    return scale * inverse, -scale * inverse @ offset - average


_ABSENT = "(zeros, for the convolution has no bias)"


def load_matconvnet_weights(
    backbone: keras.Model, path_or_network: str | os.PathLike[str] | MatConvNetNetwork
) -> ConversionReport:
    """Put the weights of a MatConvNet checkpoint into a backbone.

    Made for the networks of Kong & Fowlkes (CVPR 2018) and of MatConvNet's model zoo: ResNets and
    that of the digits tutorial. Convolutions are matched by their places in the two graphs, the
    shapes of their filters, and whether they are normalized, so that names do not matter. Strides
    and dilations are those of the backbone; those of a network that was made denser may differ.

    MatConvNet takes RGB images minus their mean. Where a backbone scales its images differently,
    for instance by another order of the colors, its first convolution makes up for it. That is
    exact except at the border of the image, where the means differ. The max pooling of Keras'
    ResNets begins one pixel above and left of where that of MatConvNet begins.

    Args:
        backbone: A functional model of images in [0, 1], such as `make_backbone` gives.
        path_or_network: Path of the checkpoint, or what `read_matconvnet` made of it.

    Returns:
        What was matched and what was not; weights without a match keep their values. Biases that
        the checkpoint lacks become 0.

    Raises:
        CheckpointError: If the file cannot be read, no convolution that takes the image fits, or
            the network strides in another convolution of the same block.
        ValueError: If `backbone` is not such a model.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.checkpoints import MatConvNetLayer, MatConvNetNetwork
        >>> from keras_rpe.models.backbones import digits_network, load_matconvnet_weights
        >>> conv = MatConvNetLayer("conv1", "dagnn.Conv", ["input"], ["x"], ["f"])
        >>> norm = MatConvNetLayer("bn1", "dagnn.BatchNorm", ["x"], ["y"], ["g", "b", "m"])
        >>> params = {"f": np.ones((3, 3, 3, 32)), "g": np.ones(32), "b": np.zeros(32)}
        >>> network = MatConvNetNetwork([conv, norm], {**params, "m": np.ones((32, 2))})
        >>> load_matconvnet_weights(digits_network(), network).matched[0]
        ('conv1_conv/kernel', 'f', (3, 3, 3, 32))
    """
    graph = _keras_graph(backbone)
    network = path_or_network
    if not isinstance(network, MatConvNetNetwork):
        network = read_matconvnet(network)
    source = _matconvnet_graph(network)
    pairs = _matches(graph, source)
    if not any(ours.source == 0 for ours, _ in pairs):
        raise CheckpointError(
            f"The checkpoint does not fit the network {backbone.name!r}: the first convolutions "
            f"are {_first(source)} there and {_first(graph)} here."
        )
    _check_strides(pairs)
    transform = _pixel_transform(backbone, graph.units[0].conv, network.average_image)
    report = ConversionReport()
    values: list[tuple[Any, np.ndarray]] = []
    taken: set[str] = set()
    for ours, theirs in pairs:
        first = transform if ours.source == 0 else None
        for variable, label, value in _values(ours, theirs, network.params, first):
            values.append((variable, value))
            report.matched.append((_name(variable), label, tuple(variable.shape)))
        taken.update(theirs.conv.params, theirs.norm.params if ours.norm and theirs.norm else ())
    assigned = {id(variable) for variable, _ in values}
    report.unmatched_weights = [
        (_name(variable), tuple(variable.shape))
        for variable in backbone.weights
        if id(variable) not in assigned
    ]
    report.unmatched_arrays = [
        (name, array.shape) for name, array in network.params.items() if name not in taken
    ]
    # Only now, that nothing can fail any more.
    for variable, value in values:
        variable.assign(value)
    return report


def _matches(ours: _Graph, theirs: _Graph) -> list[tuple[_Unit, _Unit]]:
    """Pairs of convolutions that take the same place and have filters of one shape."""
    places = {0: 0}
    pairs: list[tuple[_Unit, _Unit]] = []
    used: set[int] = set()
    sums = sorted(ours.sums.items(), key=lambda item: item[1])
    for unit in ours.units:
        # Places are numbered in their order: sums before this convolution are known by now.
        while sums and sums[0][1] < unit.output:
            parts, place = sums.pop(0)
            if parts <= places.keys():
                target = theirs.sums.get(frozenset(places[part] for part in parts))
                if target is not None:
                    places[place] = target
        if unit.source not in places:
            continue
        candidates = [
            other
            for other in theirs.units
            if other.source == places[unit.source]
            and other.shape == unit.shape
            and (other.norm is None) == (unit.norm is None)
            and other.output not in used
        ]
        # Several are alike where heads branch off: then the name decides, and else the order.
        candidates.sort(key=lambda other: other.name != unit.name)
        if candidates:
            pairs.append((unit, candidates[0]))
            used.add(candidates[0].output)
            places[unit.output] = candidates[0].output
    return pairs


def _check_strides(pairs: list[tuple[_Unit, _Unit]]) -> None:
    for ours, theirs in pairs:
        if ours.before != theirs.before and ours.after == theirs.after and ours.shape[0] > 1:
            raise CheckpointError(
                f"The checkpoint does not fit the network: {theirs.name!r} of the checkpoint has "
                f"the stride {theirs.after // theirs.before} where {ours.name!r} has "
                f"{ours.after // ours.before}, so the same filters would see other pixels."
            )


def _values(
    ours: _Unit,
    theirs: _Unit,
    params: dict[str, np.ndarray],
    transform: tuple[np.ndarray, np.ndarray] | None,
) -> list[tuple[Any, str, np.ndarray]]:
    """Variables of a convolution and its normalization, what they are called, and their values."""
    names = theirs.conv.params
    kernel = params[names[0]]
    has_bias = len(names) > 1
    bias = params[names[1]] if has_bias else np.zeros(kernel.shape[-1], "float32")
    if transform is not None:
        # A convolution that gives for x what this one gives for matrix · x + shift.
        matrix, shift = transform
        wide = kernel.astype("float64")
        kernel = np.einsum("hwio,ij->hwjo", wide, matrix).astype("float32")
        bias = (bias + np.einsum("hwio,i->o", wide, shift)).astype("float32")
    result = [(ours.conv.kernel, names[0], kernel)]
    if ours.conv.use_bias:
        result.append((ours.conv.bias, names[1] if has_bias else _ABSENT, bias))
        bias = np.zeros_like(bias)
    if ours.norm is not None and theirs.norm is not None:
        gain, offset, moments = theirs.norm.params
        mean, deviation = params[moments][:, 0], params[moments][:, 1]
        variance = np.maximum(deviation**2 - ours.norm.epsilon, 0.0)
        result += [
            (ours.norm.gamma, gain, params[gain]),
            (ours.norm.beta, offset, params[offset]),
            # A convolution that has no bias leaves it to the mean that is subtracted next.
            (ours.norm.moving_mean, moments, mean - bias),
            (ours.norm.moving_variance, moments, variance),
        ]
    elif np.any(bias):
        raise CheckpointError(
            f"The checkpoint does not fit the network: {theirs.name!r} of the checkpoint needs a "
            f"bias, and {ours.name!r} has none."
        )
    return result


def _first(graph: _Graph) -> str:
    units = [unit for unit in graph.units if unit.source == 0]
    texts = [f"{unit.name} {unit.shape}{' normalized' if unit.norm else ''}" for unit in units]
    return " and ".join(texts) or "none"


def _name(variable: Any) -> str:
    return "/".join(variable.path.split("/")[-2:])
