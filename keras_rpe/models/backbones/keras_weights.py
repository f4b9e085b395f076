"""Weights files of Keras, read by the names of the layers in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py

from keras_rpe.checkpoints import CheckpointError


@contextlib.contextmanager
def keras_weights(path: Path) -> Iterator[dict[str, h5py.Dataset]]:
    """Open the arrays of a `.weights.h5` file, or of an `.h5` file of Keras 2.

    Args:
        path: The file.

    Yields:
        Its datasets by name. None is read before it is asked for, and none lies in another file.

    Raises:
        CheckpointError: If the file is no HDF5 file, damaged or without arrays.
    """
    datasets: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
            datasets[name] = item

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise CheckpointError(
            f"{str(path)!r} must be a weights file of Keras, and cannot be read as HDF5: it is "
            "damaged or of another kind."
        ) from error
    with file:
        try:
            file.visititems(collect)
        except (OSError, RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"{str(path)!r} is damaged: its groups cannot be read."
            ) from error
        if not datasets:
            raise CheckpointError(f"{str(path)!r} must be a weights file of Keras, and is empty.")
        yield datasets


def keras_weight_names(datasets: Mapping[str, h5py.Dataset]) -> dict[str, list[str]]:
    """Find which datasets belong to which layer.

    Args:
        datasets: What `keras_weights` gives.

    Returns:
        Names of datasets by the name of their layer, in the order of the layer's weights.
    """
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
    root = next(iter(datasets.values())).file
    root = root.get("model_weights", root)
    for group in root.values():
        path = _text(group.name).strip("/")
        listed = [f"{path}/{_text(name)}" for name in group.attrs.get("weight_names", [])]
        if listed and all(name in datasets for name in listed):
            names[path.rpartition("/")[2]] = listed
    return names


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
