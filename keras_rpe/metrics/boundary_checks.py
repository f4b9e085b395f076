"""Checks of what the boundary benchmark is given."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def check_boundary_map(name: str, value: npt.ArrayLike) -> np.ndarray:
    """Return a boolean map (height, width), or raise `ValueError` with the argument's name."""
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype != bool or not array.size:
        raise ValueError(
            f"`{name}` must be a boolean map (height, width) with at least one pixel. "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    return array


def check_prediction(value: npt.ArrayLike) -> np.ndarray:
    """Return a map (height, width) of finite numbers in [0, 1], or raise `ValueError`."""
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.size:
        raise ValueError(
            "A prediction must be a map (height, width) of numbers with at least one pixel. "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    array = array.astype(np.float64)
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # also where one of them is NaN
        raise ValueError(
            f"A prediction must be finite and within [0, 1]. Received: from {low:g} to {high:g}"
        )
    return array


def check_truths(value: Sequence[npt.ArrayLike], shape: tuple[int, ...]) -> np.ndarray:
    """Return the maps of all annotators as (annotators, height, width), or raise `ValueError`."""
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str):
        raise ValueError(
            "`truths` must be a list of maps, one for each annotator. "
            f"Received: {type(value).__name__}"
        )
    maps = [check_boundary_map(f"truths[{i}]", one) for i, one in enumerate(value)]
    if not maps:
        raise ValueError("`truths` must hold at least one annotator's map. Received: none")
    for i, one in enumerate(maps):
        if one.shape != shape:
            raise ValueError(
                "The maps of `truths` must have the shape of the prediction. "
                f"Received: {one.shape} in `truths[{i}]`, a prediction of {shape}"
            )
    return np.stack(maps)


def check_max_distance(value: Any) -> float:
    """Return a distance in diagonals of the image, in [0, 1), or raise `ValueError`."""
    valid = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not valid or not 0 <= float(value) < 1:
        raise ValueError(f"`max_distance` must be a number in [0, 1). Received: {value!r}")
    return float(value)


def check_boundary_thresholds(value: Any) -> np.ndarray:
    """Return thresholds as an ascending float64 array, or raise `ValueError`.

    A number n means n thresholds k / (n + 1), in the rounding of the official benchmark: from
    1 / (n + 1) in equal steps. It matters for maps of 8 bits, where 85 / 255 is 1 / 3.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        if not 1 <= number <= 10_000:
            raise ValueError(f"`thresholds` must be from 1 to 10000. Received: {number}")
        first = 1 / (number + 1)
        return np.linspace(first, 1 - first, number)
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 1 or not array.size or not np.all((array > 0) & (array <= 1)):
        raise ValueError(
            "`thresholds` must be a number of thresholds, or a sequence of values in (0, 1]. "
            f"Received: {value!r}"
        )
    if np.any(np.diff(array) <= 0):
        raise ValueError(f"`thresholds` must ascend. Received: {value!r}")
    return array
