"""The layers of MatConvNet in NumPy, in the order of a layer table."""

from __future__ import annotations

import numpy as np

from keras_rpe.checkpoints import MatConvNetLayer, MatConvNetNetwork


def forward(
    network: MatConvNetNetwork, images: np.ndarray, batch_statistics: bool
) -> dict[str, np.ndarray]:
    """All variables, in float64, for images `(batch, H, W, 3)` less their mean."""
    taken = {name for layer in network.layers for name in layer.inputs}
    given = {name for layer in network.layers for name in layer.outputs}
    values = {name: images.astype("float64") for name in taken - given}
    for layer in network.layers:
        inputs = [values[name] for name in layer.inputs]
        params = [network.params[name].astype("float64") for name in layer.params]
        if layer.kind == "Conv":
            result = _conv(layer, inputs[0], *params)
        elif layer.kind == "BatchNorm":
            result = _norm(layer, inputs[0], *params, batch_statistics)
        elif layer.kind == "ReLU":
            result = np.maximum(inputs[0], 0)
        elif layer.kind == "Sum":
            result = sum(inputs[1:], inputs[0])
        elif layer.kind == "Pooling":
            result = _max_pool(layer, inputs[0])
        else:
            continue
        values[layer.outputs[0]] = result
    return values


def _window(layer: MatConvNetLayer, x: np.ndarray, size: tuple[int, int], fill: float):
    """For each place in the filter, the pixels that it meets."""
    top, bottom, left, right = (int(n) for n in layer.block["pad"])
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    stride = int(layer.block["stride"][0])
    height = (x.shape[1] - size[0]) // stride + 1
    width = (x.shape[2] - size[1]) // stride + 1
    for i in range(size[0]):
        for j in range(size[1]):
            rows = slice(i, i + stride * (height - 1) + 1, stride)
            yield i, j, x[:, rows, j : j + stride * (width - 1) + 1 : stride]


def _conv(layer, x, filters, bias=0.0):
    parts = _window(layer, x, filters.shape[:2], 0.0)
    return sum(pixels @ filters[i, j] for i, j, pixels in parts) + bias


def _max_pool(layer, x):
    size = tuple(int(n) for n in layer.block["poolSize"])
    return np.max([pixels for _, _, pixels in _window(layer, x, size, -np.inf)], axis=0)


def _norm(layer, x, gain, bias, moments, batch_statistics):
    mean, deviation = moments[:, 0], moments[:, 1]
    if batch_statistics:
        mean = x.mean((0, 1, 2))
        deviation = np.sqrt(x.var((0, 1, 2)) + layer.block["epsilon"])
    return gain * (x - mean) / deviation + bias
