"""Where the data of an HDF5 data set lie."""

from __future__ import annotations

from dataclasses import dataclass

from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.hdf5_object import number

_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2


@dataclass(frozen=True)
class Hdf5Storage:
    """What a message on the layout of a data set tells.

    Attributes:
        address: Address of the data, or of the tree of the chunks; `None` if they are in `data`.
        chunk: Shape of the chunks and, last, the size of an element; empty without chunks.
        data: The data themselves, where they are in the message.
    """

    address: int | None = None
    chunk: tuple[int, ...] = ()
    data: bytes = b""


def storage_of(layout: bytes) -> Hdf5Storage:
    """Read a message on the layout of a data set.

    Args:
        layout: The message.

    Returns:
        What it tells.

    Raises:
        CheckpointError: If it is damaged, or of a kind that MATLAB does not write, among them data
            sets that are put together from other files.

    Example:
        >>> from keras_rpe.checkpoints.hdf5_storage import storage_of
        >>> list(storage_of(bytes([3, 0, 2, 0, 7, 8])).data)
        [7, 8]
    """
    version = number(layout, 0, 1)
    if version == 3:
        kind, rank, start = number(layout, 1, 1), number(layout, 2, 1), 3
        start = 2 if kind == _CONTIGUOUS else start
    else:
        rank, kind, start = number(layout, 1, 1), number(layout, 2, 1), 8
    if version not in (1, 2, 3) or kind not in (_COMPACT, _CONTIGUOUS, _CHUNKED):
        raise CheckpointError("it has a data set of a kind that MATLAB does not write")
    if kind == _COMPACT and version == 3:
        return Hdf5Storage(data=layout[4 : 4 + number(layout, 2, 2)])
    if kind == _COMPACT:
        start += 4 * rank
        return Hdf5Storage(data=layout[start + 4 : start + 4 + number(layout, start, 4)])
    address = number(layout, start, 8)
    if kind == _CONTIGUOUS:
        return Hdf5Storage(address)
    return Hdf5Storage(address, tuple(number(layout, start + 8 + 4 * i, 4) for i in range(rank)))
