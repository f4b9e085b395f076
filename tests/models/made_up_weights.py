"""Weights that are the same wherever they are drawn, so that no fixture has to hold them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np


def made_up_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Weights for the names and shapes of a state dict of PyTorch."""
    return {name: _array(name, tuple(shape)) for name, shape in shapes.items()}


def made_up_image() -> np.ndarray:
    """One image with sides that no stride divides."""
    return np.random.RandomState(0).random_sample((1, 70, 97, 3)).astype("float32")


def _array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    # RandomState's stream is frozen across versions of NumPy, unlike that of Generator.
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(3)
    noise = random.standard_normal(shape).astype("float32")
    if len(shape) == 4:
        return noise * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if name.endswith("running_var"):
        return 1 + np.abs(noise)
    return 0.6 + 0.2 * noise if name.endswith("weight") else 0.2 * noise
