"""The losses that a training run has logged."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_NAME = re.compile(r"(val_)?(?:embedding|shift_([1-9]\d{0,3}))_loss")
_MAX_BYTES = 64 * 2**20


class LoopLosses(NamedTuple):
    """The loss on the embeddings after one number of loops.

    Attributes:
        loop: After how many loops; 0 is before mean shift.
        validation: Whether it is of the validation data.
        values: The loss of each epoch, NaN where none is known.
    """

    loop: int
    validation: bool
    values: np.ndarray


def training_losses(history: Any) -> tuple[np.ndarray, list[LoopLosses]]:
    """Find the losses of the loops in what a training run has logged.

    Args:
        history: What `fit` returns, or its `history`, or the path of a file that
            `keras.callbacks.CSVLogger` wrote.

    Returns:
        The numbers of the epochs from 1, `(epochs,)`, and the losses, in order of the loops, those
        of training before those of validation.

    Raises:
        ValueError: If it is none of these, or has no such losses, or none that is finite.
        OSError: If the file cannot be read.

    Example:
        >>> from keras_rpe.visualization.training_losses import training_losses
        >>> epochs, losses = training_losses({"embedding_loss": [2, 1], "shift_1_loss": [1, 0.5]})
        >>> epochs.tolist(), [one.values.tolist() for one in losses]
        ([1, 2], [[2.0, 1.0], [1.0, 0.5]])
    """
    epochs: Any = None
    columns: Mapping[Any, Any]
    if isinstance(history, (str, os.PathLike)):
        columns = _read_csv(Path(history))
        epochs = columns.get("epoch")
    elif isinstance(history, Mapping):
        columns = history
    elif isinstance(getattr(history, "history", None), Mapping):
        columns, epochs = history.history, getattr(history, "epoch", None)
    else:
        raise ValueError(
            "`history` must be what fit() returns, a dictionary of lists, or the path of a CSV "
            f"log. Received: {type(history).__name__}"
        )
    losses = []
    for name, values in columns.items():
        match = _NAME.fullmatch(str(name))
        if match:
            numbers = _numbers(str(name), values)
            losses.append(LoopLosses(int(match[2] or 0), match[1] is not None, numbers))
    if not losses:
        raise ValueError(
            "`history` must hold losses of the names embedding_loss, shift_1_loss, … of one epoch "
            f"at least. Received: {sorted(map(str, columns))}"
        )
    lengths = {one.values.size for one in losses}
    if len(lengths) > 1 or lengths == {0}:
        raise ValueError(
            "`history` must hold a loss for each epoch, of one epoch at least. "
            f"Received: losses of {sorted(lengths)} epochs"
        )
    if not any(np.isfinite(one.values).any() for one in losses):
        raise ValueError("`history` must hold a finite loss. Received: none")
    (length,) = lengths
    numbers = np.arange(length)
    if epochs is not None:
        numbers = _numbers("epoch", epochs)
        if numbers.size != length or not np.isfinite(numbers).all():
            raise ValueError(
                "`history` must number each of its epochs. "
                f"Received: {numbers.size} numbers of {length} epochs"
            )
    return numbers + 1, sorted(losses, key=lambda one: (one.validation, one.loop))


def _numbers(name: str, values: Any) -> np.ndarray:
    """Values as float64 `(n,)`; what is missing is NaN."""
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, str):
        raise ValueError(
            f"`history` must hold lists. Received: {name} of type {type(values).__name__}"
        )
    missing = (None, "", "NA")
    try:
        return np.array(
            [np.nan if isinstance(v, (str, type(None))) and v in missing else float(v)
             for v in values]
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise ValueError(f"`history` must hold numbers. Received: {name}={values!r:.80}") from error


def _read_csv(path: Path) -> dict[str, list[str | None]]:
    """The columns of a CSV file by the names in its first row."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(
            f"`history` must be a CSV log of at most {_MAX_BYTES >> 20} MiB. "
            f"Received: {path} of {path.stat().st_size >> 20} MiB"
        )
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"`history` must be a CSV log. Received: {path}: {error}") from error
    if any(None in row for row in rows):
        raise ValueError(
            f"`history` must be a CSV log. Received: {path} with rows longer than its first"
        )
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
