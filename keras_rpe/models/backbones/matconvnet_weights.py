"""Weights of MatConvNet checkpoints for backbones."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from keras_rpe.checkpoints import (
    CheckpointError,
    ConversionReport,
    MatConvNetNetwork,
    read_matconvnet,
)
from keras_rpe.models.backbones.conv_graph import ConvGraph, keras_graph, matconvnet_graph
from keras_rpe.models.backbones.conv_unit import ConvUnit
from keras_rpe.models.backbones.pixel_transform import PixelTransform, pixel_transform

_ABSENT = "(zeros, for the convolution has no bias)"


def load_matconvnet_weights(
    backbone: keras.Model, path_or_network: str | os.PathLike[str] | MatConvNetNetwork
) -> ConversionReport:
    """Put the weights of a MatConvNet checkpoint into a backbone.

    Made for the networks of Kong & Fowlkes (CVPR 2018) and of MatConvNet's model zoo: ResNets and
    that of the digits tutorial. Convolutions are matched by their places in the two graphs, the
    shapes of their filters, and whether they are normalised, so that names do not matter. Strides
    and dilations are those of the backbone; those of a network that was made denser may differ.

    MatConvNet takes RGB images less their mean. What a backbone makes of its images in another way,
    such as the order of the colours, is put into its first convolution. That is exact but for the
    border of the image where the means differ. The max pooling of Keras' ResNets begins one pixel
    above and left of where that of MatConvNet begins.

    Args:
        backbone: A functional model of images in [0, 1], such as `make_backbone` gives.
        path_or_network: Path of the checkpoint, or what `read_matconvnet` made of it.

    Returns:
        What was matched and what was not; weights without a match keep their values. Biases that
        the checkpoint lacks become 0.

    Raises:
        CheckpointError: If the file cannot be read, no convolution that takes the image fits, or
            the network strides in another convolution of the same block.
        ValueError: If `backbone` is no such model.

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
    graph = keras_graph(backbone)
    network = path_or_network
    if not isinstance(network, MatConvNetNetwork):
        network = read_matconvnet(network)
    source = matconvnet_graph(network)
    pairs = _matches(graph, source)
    if not any(ours.source == 0 for ours, _ in pairs):
        raise CheckpointError(
            f"The checkpoint does not fit the network {backbone.name!r}: the first convolutions "
            f"are {_first(source)} there and {_first(graph)} here."
        )
    _check_strides(pairs)
    transform = pixel_transform(backbone, graph.units[0].conv, network.average_image)
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


def _matches(ours: ConvGraph, theirs: ConvGraph) -> list[tuple[ConvUnit, ConvUnit]]:
    """Pairs of convolutions that take the same place and have filters of one shape."""
    places = {0: 0}
    pairs: list[tuple[ConvUnit, ConvUnit]] = []
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


def _check_strides(pairs: list[tuple[ConvUnit, ConvUnit]]) -> None:
    for ours, theirs in pairs:
        if ours.before != theirs.before and ours.after == theirs.after and ours.shape[0] > 1:
            raise CheckpointError(
                f"The checkpoint does not fit the network: {theirs.name!r} of the checkpoint has "
                f"the stride {theirs.after // theirs.before} where {ours.name!r} has "
                f"{ours.after // ours.before}, so the same filters would see other pixels."
            )


def _values(
    ours: ConvUnit,
    theirs: ConvUnit,
    params: dict[str, np.ndarray],
    transform: PixelTransform | None,
) -> list[tuple[Any, str, np.ndarray]]:
    """Variables of a convolution and its normalisation, what they are called, and their values."""
    names = theirs.conv.params
    kernel = params[names[0]]
    has_bias = len(names) > 1
    bias = params[names[1]] if has_bias else np.zeros(kernel.shape[-1], "float32")
    if transform is not None:
        kernel, bias = transform.applied(kernel, bias)
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


def _first(graph: ConvGraph) -> str:
    units = [unit for unit in graph.units if unit.source == 0]
    texts = [f"{unit.name} {unit.shape}{' normalised' if unit.norm else ''}" for unit in units]
    return " and ".join(texts) or "none"


def _name(variable: Any) -> str:
    return "/".join(variable.path.split("/")[-2:])
