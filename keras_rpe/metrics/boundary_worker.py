"""A process that counts boundary pixels of one image after another: run by `BoundaryWorkers`.

It reads from its standard input and answers on its standard output until the input ends. It
loads NumPy and SciPy alone.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import IO

import numpy as np
import numpy.typing as npt


def send(stream: IO[bytes], arrays: Iterable[npt.ArrayLike]) -> None:
    """Write arrays as one message: its size in 8 bytes, then the arrays in NumPy's format."""
    body = BytesIO()
    for array in arrays:
        np.lib.format.write_array(body, np.asarray(array), allow_pickle=False)
    stream.write(body.tell().to_bytes(8, "little"))
    stream.write(body.getbuffer())
    stream.flush()


def receive(stream: IO[bytes]) -> list[np.ndarray]:
    """Read the arrays of one message; none where the stream has ended.

    Example:
        >>> from io import BytesIO
        >>> from keras_rpe.metrics.boundary_worker import receive, send
        >>> stream = BytesIO()
        >>> send(stream, [[1, 2], 0.5])
        >>> _ = stream.seek(0)
        >>> receive(stream), receive(stream)
        ([array([1, 2]), array(0.5)], [])
    """
    size = int.from_bytes(stream.read(8), "little")
    body = BytesIO(stream.read(size))
    arrays = []
    while body.tell() < size:
        arrays.append(np.lib.format.read_array(body, allow_pickle=False))
    return arrays


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until they end.

    Args:
        requests: holds a message of the four arguments of `boundary_counts` for each image.
        answers: receives a message of one array of counts for each image.
    """
    from keras_rpe.metrics.boundaries import boundary_counts

    while request := receive(requests):
        prediction, truths, thresholds, max_distance = request
        send(answers, [boundary_counts(prediction, truths, thresholds, float(max_distance))])


def _skip_package_imports() -> None:
    """Let modules of the package be imported without its `__init__`, which loads TensorFlow."""
    folder = Path(__file__).parent
    for name, path in (("keras_rpe", folder.parent), ("keras_rpe.metrics", folder)):
        package = ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package


if __name__ == "__main__":
    # An interrupt reaches all processes of a terminal: the one that asked ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _skip_package_imports()
    serve(sys.stdin.buffer, sys.stdout.buffer)
