"""Weights of Keras and torch files into backbones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np

from keras_rpe.checkpoints import (
    CheckpointError,
    ConversionReport,
    read_safetensors,
    read_torch_file,
)

_VGG16_BLOCKS = (2, 2, 3, 3, 3)
_LITE_BLOCK = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_LITE = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "head_conv": "_conv_head",
    "head_bn": "_bn1",
    "logits": "_fc",
}

# Backbones that compute the same numbers as a network of PyTorch with the same weights.
TORCH_TWINS = (
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "resnet50_torchvision",
    "resnet101_torchvision",
    "resnet50_torchvision_os8",
    "resnet101_torchvision_os8",
    "vgg16_torchvision",
)


def _torch_module(backbone: str, layer: str) -> str | None:
    """The name that a layer has in the twin of PyTorch, if it has one."""
    if backbone.startswith("efficientnet_lite"):
        match = re.fullmatch(r"block(\d+)_(\w+)", layer)
        if match:
            module = _LITE_BLOCK.get(match[2])
            return f"_blocks.{match[1]}.{module}" if module else None
        return _LITE.get(layer)
    if backbone.startswith("vgg16"):
        match = re.fullmatch(r"block([1-5])_conv([1-3])", layer)
        if not match:
            return None
        # In `features` a ReLU follows each convolution, and a pooling each block.
        before, index = int(match[1]) - 1, int(match[2]) - 1
        return f"features.{2 * (sum(_VGG16_BLOCKS[:before]) + index) + before}"
    match = re.fullmatch(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)", layer)
    if match:
        stage, block, position, kind = match.groups()
        module = f"{kind}{position}" if position != "0" else f"downsample.{int(kind == 'bn')}"
        return f"layer{int(stage) - 1}.{int(block) - 1}.{module}"
    return {"conv1_conv": "conv1", "conv1_bn": "bn1"}.get(layer)


_TORCH_SUFFIXES = (".pth", ".pt", ".safetensors")
_SUFFIXES = (".h5", *_TORCH_SUFFIXES, ".mat")
# Where PyTorch keeps the axes of a kernel in Keras' order.
_KERNEL_AXES = {
    keras.layers.Conv2D: (2, 3, 1, 0),
    keras.layers.DepthwiseConv2D: (2, 3, 0, 1),
    keras.layers.Dense: (1, 0),
}
_TORCH_PARTS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class _Slot(NamedTuple):
    """A weight of the network, and the array that belongs into it."""

    label: str
    variable: Any
    array: str | None
    axes: tuple[int, ...] | None = None  # How the array is transposed; None for not at all.


def load_backbone_weights(
    backbone: keras.Model, path_or_arrays: str | Path | Mapping[str, np.ndarray]
) -> ConversionReport:
    """Put weights of a file into a backbone, by the names of its layers.

    Weights of PyTorch fit the backbones in `TORCH_TWINS`, which give the same features as their
    twins: EfficientNet-Lite of the package `efficientnet_lite_pytorch`, and ResNet and VGG16 of
    torchvision. The MobileNets and EfficientNets of `keras.applications` pad as TensorFlow does and
    therefore have no twin in torchvision. Weights of Keras fit every backbone whose layers have the
    names in the file. Nothing of the backbone changes if an error is raised.

    Args:
        backbone: A model of `make_backbone`. Its name says which network it is.
        path_or_arrays: A file of PyTorch (`.pth`, `.pt`, `.safetensors`), Keras (`.weights.h5`,
            `.h5`) or MatConvNet (`.mat`), or the arrays of a PyTorch network by name.

    Returns:
        What was matched and what was not; weights without an array keep their values.

    Raises:
        CheckpointError: If the file is damaged or of an unknown kind, the backbone has no twin,
            no array fits, a shape differs, or a value is not finite.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.backbones import load_backbone_weights, make_backbone
        >>> backbone = make_backbone("efficientnet_lite0")
        >>> arrays = {"_conv_stem.weight": np.ones((32, 3, 3, 3), "float32")}
        >>> report = load_backbone_weights(backbone, arrays)
        >>> report.matched
        [('stem_conv/kernel', '_conv_stem.weight', (3, 3, 3, 32))]
        >>> report.summary()
        '1 weight matched, 239 left as they were, 0 arrays of the checkpoint unused'
    """
    if isinstance(path_or_arrays, Mapping):
        return _load_torch(backbone, path_or_arrays, "`path_or_arrays`")
    path = Path(path_or_arrays)
    if not path.is_file() or path.suffix not in _SUFFIXES:
        problem = "" if path.is_file() else ", which is not a file"
        raise CheckpointError(
            "`weights` must be None, 'imagenet' or the path of a file that ends in one of "
            f"{', '.join(_SUFFIXES)}. Received: {str(path)!r}{problem}"
        )
    if path.suffix in _TORCH_SUFFIXES:
        _require_twin(backbone)  # Before a large file is read.
        read = read_safetensors if path.suffix == ".safetensors" else read_torch_file
        return _load_torch(backbone, read(path), repr(str(path)))
    if path.suffix == ".h5":
        return _load_keras(backbone, path)
    from keras_rpe.models.backbones.matconvnet import load_matconvnet_weights

    return load_matconvnet_weights(backbone, path)


def load_all_weights(backbone: keras.Model, path: str | Path) -> ConversionReport:
    """Put weights of a file into a backbone, and insist that every weight gets one."""
    report = load_backbone_weights(backbone, path)
    if report.unmatched_weights:
        missing = [label for label, _ in report.unmatched_weights]
        raise CheckpointError(
            f"The file {str(path)!r} must hold every weight of {backbone.name}, and "
            f"{len(missing)} are missing, such as {missing[0]}."
        )
    return report


def _require_twin(backbone: keras.Model) -> None:
    if backbone.name not in TORCH_TWINS:
        raise CheckpointError(
            f"`backbone` must be one of {', '.join(TORCH_TWINS)} to take weights of PyTorch. "
            f"Received: backbone={backbone.name!r}"
        )


def _load_torch(
    backbone: keras.Model, arrays: Mapping[str, np.ndarray], source: str
) -> ConversionReport:
    _require_twin(backbone)
    slots = []
    for layer in backbone.layers:
        for variable in layer.weights:
            part = variable.name
            name = f"{_torch_module(backbone.name, layer.name)}.{_TORCH_PARTS[part]}"
            axes = _KERNEL_AXES[type(layer)] if part == "kernel" else None
            array = name if name in arrays else None
            slots.append(_Slot(f"{layer.name}/{part}", variable, array, axes))
    return _fill(backbone, slots, arrays, source)


def _load_keras(backbone: keras.Model, path: Path) -> ConversionReport:
    source = repr(str(path))
    datasets: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        # What lies in other files is not read.
        if isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
            datasets[name] = item

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
            names = _arrays_of_layers(file, datasets)
            slots = []
            for layer in backbone.layers:
                found = names.get(layer.name, [])
                # The arrays of a layer are told apart only by their order.
                fits = len(found) == len(layer.weights)
                for i, variable in enumerate(layer.weights):
                    label = f"{layer.name}/{variable.name}"
                    slots.append(_Slot(label, variable, found[i] if fits else None))
            return _fill(backbone, slots, datasets, source)
    except (OSError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"{source} must be a weights file of Keras, and is damaged or of another kind."
        ) from error


def _arrays_of_layers(file: h5py.File, datasets: dict[str, h5py.Dataset]) -> dict[str, list[str]]:
    """The datasets of each layer, in the order of its weights."""
    names: dict[str, list[str]] = {}
    for name, dataset in datasets.items():
        group, _, last = name.rpartition("/")
        if group.endswith("vars") and last.isdigit():
            layer = dataset.parent.attrs.get("name")
            if isinstance(layer, str):
                names.setdefault(layer, []).append(name)
    for found in names.values():
        found.sort(key=lambda name: int(name.rpartition("/")[2]))
    if names:
        return names
    # Keras 2: a group a layer, whose attribute lists the weights in order; whole models have these
    # groups in another one.
    for group in file.get("model_weights", file).values():
        path = group.name.strip("/")
        listed = [
            f"{path}/{name.decode() if isinstance(name, bytes) else name}"
            for name in group.attrs.get("weight_names", [])
        ]
        if listed and all(name in datasets for name in listed):
            names[path.rpartition("/")[2]] = listed
    return names


def _fill(
    backbone: keras.Model,
    slots: list[_Slot],
    arrays: Mapping[str, np.ndarray | h5py.Dataset],
    source: str,
) -> ConversionReport:
    report = ConversionReport()
    shapes = {name: tuple(np.shape(array)) for name, array in arrays.items()}
    for slot in slots:
        wanted = tuple(slot.variable.shape)
        if slot.array is None:
            report.unmatched_weights.append((slot.label, wanted))
            continue
        shape = shapes[slot.array]
        expected = wanted
        if slot.axes:
            expected = tuple(wanted[slot.axes.index(i)] for i in range(len(wanted)))
        if shape != expected:
            raise CheckpointError(
                f"{source} does not fit {backbone.name}: {slot.array} must have the shape "
                f"{expected} and has {shape}."
            )
        report.matched.append((slot.label, slot.array, wanted))
    taken = {array for _, array, _ in report.matched}
    report.unmatched_arrays = [(name, shape) for name, shape in shapes.items() if name not in taken]
    if not shapes:
        raise CheckpointError(f"{source} must be a file of weights, and is empty.")
    if not report.matched:
        raise CheckpointError(
            f"{source} does not fit {backbone.name}: none of its {len(shapes)} arrays has the name "
            f"of a weight, such as {slots[0].label}."
        )
    values = []
    for slot in slots:
        if slot.array is not None:
            array = np.asarray(arrays[slot.array])
            if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
                raise CheckpointError(
                    f"{source} must hold finite numbers, and {slot.array} does not."
                )
            values.append((slot.variable, array.transpose(slot.axes) if slot.axes else array))
    for variable, value in values:
        variable.assign(value)
    return report
