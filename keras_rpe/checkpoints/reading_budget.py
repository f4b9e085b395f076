"""Limits on what is read from a file that may be damaged or made to harm."""

from __future__ import annotations

from keras_rpe.checkpoints.checkpoint_error import CheckpointError

MAX_BYTES = 512 * 2**20
MAX_VALUES = 200_000
MAX_DEPTH = 24
# Weights hardly shrink when they are compressed, and zeros do a thousandfold.
_MAX_EXPANSION = 20
_FREE_BYTES = 64 * 2**20


class ReadingBudget:
    """Count the bytes and the values that a reader is about to take, and refuse too many.

    Args:
        file_size: Size of the file in bytes.
        max_bytes: Most bytes of all arrays together. Small files get less: what a file may expand
            to grows with its size.
        max_values: Most values: arrays, texts, entries of cells and structs.

    Raises:
        CheckpointError: By its methods, before anything is allocated.

    Example:
        >>> from keras_rpe.checkpoints.reading_budget import ReadingBudget
        >>> ReadingBudget(file_size=1000).take_bytes(10**9)
        Traceback (most recent call last):
        ...
        keras_rpe.checkpoints.checkpoint_error.CheckpointError: it declares more than ...
    """

    def __init__(
        self, file_size: int, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES
    ) -> None:
        self._limit = min(max_bytes, _FREE_BYTES + _MAX_EXPANSION * file_size)
        self._bytes = self._limit
        self._values = max_values

    def take_bytes(self, count: int) -> None:
        """Take bytes of arrays or texts."""
        self._bytes -= count
        if count < 0 or self._bytes < 0:
            raise CheckpointError(
                f"it declares more than the {self._limit // 2**20} MiB of data accepted from a "
                "file of its size"
            )

    def take_values(self, count: int) -> None:
        """Take values, whatever their size."""
        self._values -= count
        if count < 0 or self._values < 0:
            raise CheckpointError(f"it declares more than the {MAX_VALUES} values accepted")

    def check_depth(self, depth: int) -> None:
        """Refuse values nested too deep."""
        if depth > MAX_DEPTH:
            raise CheckpointError(f"its values are nested deeper than the {MAX_DEPTH} accepted")
