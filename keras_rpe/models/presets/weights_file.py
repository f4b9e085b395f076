"""Weights of Keras in HDF5 files of unknown origin: checked before they are read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from keras_rpe.models.presets.model_config import first_line
from keras_rpe.models.presets.preset_error import PresetError

Shape = tuple[int, ...]

_MAX_OBJECTS = 200_000
_MAX_DEPTH = 50
_MAX_DATASET_BYTES = 4_000_000_000


def weight_shapes(path: Path) -> Counter[Shape]:
    """Count the shapes of the weights in a file without reading them.

    Args:
        path: A `.weights.h5` file.

    Returns:
        How often each shape occurs, the state of an optimizer left out.

    Raises:
        PresetError: If it is no such file, or has links, external or virtual data, or data that
            are no numbers.
    """
    try:
        with h5py.File(path, "r") as file:
            return Counter(shape for _, shape in _datasets(file, path))
    except PresetError:
        raise
    except Exception as error:
        # A damaged file raises whatever the HDF5 library meets: OSError, RuntimeError, KeyError …
        raise PresetError(
            f"The weights in {path} are damaged or of another kind: {first_line(error)}"
        ) from error


def _datasets(file: h5py.File, path: Path) -> Iterator[tuple[str, Shape]]:
    waiting = [("", 0)]
    seen = 0
    while waiting:
        name, depth = waiting.pop()
        group = file[name] if name else file
        for key in group:
            seen += 1
            if seen > _MAX_OBJECTS or depth > _MAX_DEPTH:
                raise PresetError(f"The weights in {path} are refused: too many or too deep.")
            child = f"{name}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise PresetError(f"The weights in {path} are refused: {child} is a link.")
            entry = group[key]
            if isinstance(entry, h5py.Group):
                waiting.append((child, depth + 1))
                continue
            _check_dataset(entry, child, path)
            if not child.startswith("/optimizer"):
                yield child, tuple(int(side) for side in entry.shape)


def _check_dataset(entry: Any, name: str, path: Path) -> None:
    if not isinstance(entry, h5py.Dataset) or entry.is_virtual or entry.external:
        raise PresetError(f"The weights in {path} are refused: {name} has its data elsewhere.")
    if entry.dtype.kind not in "fiub" and entry.dtype.name != "bfloat16":
        raise PresetError(f"The weights in {path} are refused: {name} holds no numbers.")
    if math.prod(entry.shape or ()) * entry.dtype.itemsize > _MAX_DATASET_BYTES:
        raise PresetError(f"The weights in {path} are refused: {name} is too large.")


def check_shapes(shapes: Counter[Shape], variables: list[Any], path: Path) -> None:
    """Check that a file has a weight of the shape of each variable, and no others.

    Args:
        shapes: Of the file, as `weight_shapes` gives them.
        variables: Of the model; they need no values yet.
        path: The file.

    Raises:
        PresetError: If it does not; the message names a variable.
    """
    left = Counter(shapes)
    for variable in variables:
        shape = tuple(variable.shape)
        if not left[shape]:
            raise PresetError(
                f"The weights in {path} do not fit the model: its {variable.path} has the shape "
                f"{shape}, and the file has {shapes[shape] or 'no'} weights of that shape."
            )
        left[shape] -= 1
    if spare := +left:
        shape = next(iter(spare))
        raise PresetError(
            f"The weights in {path} do not fit the model: the file has {shapes[shape]} weights of "
            f"the shape {shape}, and the model fewer."
        )


def load_weights(model: keras.Model, path: Path) -> None:
    """Load weights whose shapes `check_shapes` has accepted.

    Args:
        model: The model.
        path: A `.weights.h5` file.

    Raises:
        PresetError: If they cannot be read, or are not finite.
    """
    try:
        model.load_weights(path)
    except Exception as error:
        raise PresetError(
            f"The weights in {path} cannot be loaded into {model.name}: {first_line(error)}"
        ) from error
    for variable in model.variables:
        values = keras.ops.convert_to_numpy(variable.value)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise PresetError(f"The weights in {path} are refused: {variable.path} is not finite.")
