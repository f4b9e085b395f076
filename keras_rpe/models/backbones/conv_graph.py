"""Networks as graphs of convolutions, in which those of two frameworks can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_rpe.checkpoints import CheckpointError, MatConvNetLayer, MatConvNetNetwork
from keras_rpe.models.backbones.conv_unit import ConvUnit

# Layers that leave the place in the graph, whatever they do to the values. Pooling has a stride.
_PASSING = ("ReLU", "Sigmoid", "DropOut", "Pooling", "Crop")


@dataclass
class ConvGraph:
    """The convolutions of a network and the sums between them.

    Places are numbers: 0 is the image; each convolution gives one, that of its normalisation and
    activation too, and so does each sum.

    Attributes:
        units: The convolutions, each after those that it depends on.
        sums: The place that the sum of some places gives.

    Example:
        >>> from keras_rpe.models.backbones import digits_network
        >>> from keras_rpe.models.backbones.conv_graph import keras_graph
        >>> graph = keras_graph(digits_network())
        >>> len(graph.units), len(graph.sums)
        (41, 12)
    """

    units: list[ConvUnit] = field(default_factory=list)
    sums: dict[frozenset[int], int] = field(default_factory=dict)
    _count: int = 0
    _places: dict[Any, tuple[int, int]] = field(default_factory=dict)
    _owners: dict[int, ConvUnit] = field(default_factory=dict)

    def start(self, key: Any) -> None:
        """Name the image."""
        self._places[key] = 0, 1

    def passes(self, source: Any, key: Any, stride: int = 1) -> None:
        """Add a layer that leaves its place."""
        if source in self._places:
            place, reduction = self._places[source]
            self._places[key] = place, reduction * stride

    def add_sum(self, sources: Iterable[Any], key: Any) -> None:
        """Add a sum."""
        sources = list(sources)
        if all(source in self._places for source in sources):
            self._count += 1
            self.sums[frozenset(self._places[source][0] for source in sources)] = self._count
            self._places[key] = self._count, self._places[sources[0]][1]

    def add_conv(
        self, source: Any, key: Any, name: str, shape: tuple[int, ...], stride: int, layer: Any
    ) -> None:
        """Add a convolution."""
        if source in self._places:
            self._count += 1
            place, before = self._places[source]
            unit = ConvUnit(name, shape, place, self._count, before, before * stride, layer)
            self.units.append(unit)
            self._owners[self._count] = unit
            self._places[key] = self._count, unit.after

    def add_norm(self, source: Any, key: Any, layer: Any) -> None:
        """Add a normalisation, which belongs to the convolution before it."""
        self.passes(source, key)
        unit = self._owners.get(self._places.get(source, (0, 1))[0])
        if unit is not None and unit.norm is None:
            unit.norm = layer


def keras_graph(model: keras.Model) -> ConvGraph:
    """The graph of a functional Keras model.

    Args:
        model: A functional model with one input, whose layers are used once.

    Returns:
        Its graph, as far as it is made of convolutions, sums, and layers of one input.

    Raises:
        ValueError: If it is no such model.
    """
    if not hasattr(model, "operations") or len(model.inputs) != 1:
        raise ValueError(
            "`backbone` must be a functional Keras model with one input. "
            f"Received: {type(model).__name__}"
        )
    graph = ConvGraph()
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


def matconvnet_graph(network: MatConvNetNetwork) -> ConvGraph:
    """The graph of a MatConvNet network.

    Args:
        network: The network; its layers may be in any order.

    Returns:
        Its graph, as far as it is made of convolutions, sums, and layers of one input.

    Raises:
        CheckpointError: If it has no layer that takes an image.
    """
    graph = ConvGraph()
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
    """The layers, each after those that it depends on; those in a cycle are left out."""
    givers = {output: index for index, layer in enumerate(layers) for output in layer.outputs}
    missing = [0] * len(layers)
    takers: dict[int, list[int]] = {}
    for index, layer in enumerate(layers):
        for giver in {givers[name] for name in layer.inputs if name in givers}:
            missing[index] += 1
            takers.setdefault(giver, []).append(index)
    ready = [index for index, count in enumerate(missing) if count == 0]
    for index in ready:
        for taker in takers.get(index, ()):
            missing[taker] -= 1
            if missing[taker] == 0:
                ready.append(taker)
    return [layers[index] for index in ready]


def _stride(layer: MatConvNetLayer) -> int:
    stride = layer.block.get("stride", 1.0)
    first = stride[0] if isinstance(stride, tuple) and stride else stride
    return int(first) if isinstance(first, float) and 1 <= first <= 64 else 1
