"""A process in which models run, as TensorFlow and some drivers of OpenGL do not share one."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_LARGE = 2048**2  # Pixels, from which an image is segmented in tiles.


class ModelProcess:
    """Segments images in another process, which starts with the first one and keeps its model.

    It ends with the window, or by `stop` from another thread.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def segment(
        self,
        image: np.ndarray,
        preset: str,
        diameter: float | str,
        pixel_size: float | None,
        progress: Callable[[int, int], None],
    ) -> tuple[np.ndarray, dict[str, np.ndarray], float | None]:
        """Segment an image.

        Args:
            image: `(H, W)` or `(H, W, C)`.
            preset: The name of a preset, or its folder.
            diameter: Of the objects, in pixels, or "auto".
            pixel_size: Side of a pixel in µm, or `None`.
            progress: Is called with the number of tiles that are done, and of all.

        Returns:
            The labels, what was measured, by name, and the diameter.

        Raises:
            ValueError: If the preset or the image cannot be used.
            ConnectionError: If the process has ended.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
            )
        requests: Any = self._process.stdin
        answers: Any = self._process.stdout
        try:
            _send(requests, (image, preset, diameter, pixel_size))
            while True:
                kind, *content = pickle.load(answers)
                if kind == "progress":
                    progress(*content)
                elif kind == "wrong":
                    raise ValueError(*content)
                else:
                    return tuple(content)
        except (EOFError, OSError, pickle.PickleError) as error:
            self.stop()
            raise ConnectionError("The process of the model has ended.") from error

    def stop(self) -> None:
        """End the process, whatever it does; the next image starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


def environment() -> dict[str, str]:
    """Variables of a process that runs TensorFlow beside another one, on a GPU that both use."""
    return {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true", **os.environ}


def _send(file: BinaryIO, content: tuple[Any, ...]) -> None:
    pickle.dump(content, file, pickle.HIGHEST_PROTOCOL)
    file.flush()


@functools.lru_cache(1)
def _loaded(preset: str, _changed: tuple[int, ...]) -> Any:
    from keras_rpe.large.tiles import loaded_segmenter

    loaded_segmenter.cache_clear()
    return loaded_segmenter(preset)


def _segment(
    answers: BinaryIO,
    image: np.ndarray,
    preset: str,
    diameter: float | str,
    pixel_size: float | None,
) -> tuple[Any, ...]:
    place = Path(preset)
    files = sorted(place.iterdir()) if place.is_dir() else []
    model = _loaded(preset, tuple(file.stat().st_mtime_ns for file in files))
    if image.shape[0] * image.shape[1] <= _LARGE:
        found = model.predict_instances(image, diameter)
        return found.labels, found.measure(image, pixel_size), found.diameter
    import pandas
    import tifffile

    from keras_rpe.large import segment_large

    with tempfile.TemporaryDirectory() as folder:
        result = segment_large(
            image,
            model,
            Path(folder, "labels.tif"),
            diameter,
            progress=lambda done, total: _send(answers, ("progress", done, total)),
        )
        table = pandas.read_csv(result.table).to_dict("series")
        measured = {str(name): np.asarray(column) for name, column in table.items()}
        if pixel_size is not None:
            measured["area_um2"] = measured["area_px"] * pixel_size**2
        return tifffile.imread(result.labels), measured, result.diameter


def _main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What libraries print must not come between the answers.
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: tuple[Any, ...] = ("found", *_segment(answers, *request))
        except Exception as error:
            known = isinstance(error, (ValueError, OSError, ImportError))
            answer = ("wrong", str(error) if known else f"{type(error).__name__}: {error}")
        _send(answers, answer)


if __name__ == "__main__":
    _main()
