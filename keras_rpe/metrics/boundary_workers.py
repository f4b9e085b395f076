"""Processes that count boundary pixels, and the queue before them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, cast

import numpy as np

from keras_rpe.metrics.boundary_worker import receive, send

_SCRIPT = Path(__file__).with_name("boundary_worker.py")

Image = tuple[np.ndarray, np.ndarray]


class BoundaryWorkers:
    """Counts boundary pixels of images in several processes.

    The processes are new interpreters that run one script, not copies of this one: TensorFlow's
    threads make copies unsafe, and `multiprocessing`'s fresh processes would import this package
    (seconds and half a gigabyte for TensorFlow in each) and the user's own script.

    Args:
        processes: how many.
        thresholds: array (n,).
        max_distance: largest distance of a pair, in diagonals of the image.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics.boundary_workers import BoundaryWorkers
        >>> with BoundaryWorkers(1, np.array([0.5]), 0.1) as workers:
        ...     counts = list(workers.map([(np.ones((1, 2)), np.ones((1, 1, 2), bool))]))
        >>> counts
        [array([[2, 2, 2, 2]])]
    """

    def __init__(self, processes: int, thresholds: np.ndarray, max_distance: float) -> None:
        self._arrays = thresholds, np.asarray(max_distance)
        # One thread each is what the processes are for.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []
        for _ in range(processes):
            worker = subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            self._all.append(worker)
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(processes)

    def __enter__(self) -> BoundaryWorkers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes, at once where an error left some of them at work."""
        for worker in self._all:
            if kind is not None:
                worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._all:
            for stream in (worker.stdin, worker.stdout):
                with suppress(BrokenPipeError):
                    cast(IO[bytes], stream).close()
            worker.wait()

    def map(self, images: Iterable[Image]) -> Iterator[np.ndarray]:
        """Count image after image; few of them are held at a time.

        Args:
            images: pairs of a prediction (height, width) and truths (annotators, height, width).

        Returns:
            Iterator of what `boundary_counts` returns, in the order of the images.

        Raises:
            RuntimeError: if a process ends before its work is done.
        """
        pending: deque[Future[np.ndarray]] = deque()
        for image in images:
            pending.append(self._threads.submit(self._count, image))
            if len(pending) > 2 * len(self._all):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _count(self, image: Image) -> np.ndarray:
        worker = self._idle.get()
        stdin, stdout = cast(IO[bytes], worker.stdin), cast(IO[bytes], worker.stdout)
        try:
            send(stdin, (*image, *self._arrays))
            (counts,) = receive(stdout)
        except (OSError, ValueError) as error:  # a closed pipe, or no answer
            raise RuntimeError(
                "A process of the boundary benchmark ended before its work was done; "
                "with `processes=1` the work is done in this one."
            ) from error
        finally:
            self._idle.put(worker)
        return counts
