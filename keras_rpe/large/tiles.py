"""The tiles of a large image, each segmented as if the image were seen whole."""

from __future__ import annotations

import ctypes
import functools
import io
import math
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import find_objects

from keras_rpe.large.image import LargeImage
from keras_rpe.models.instance_segmenter import InstanceSegmenter
from keras_rpe.models.task import Task
from keras_rpe.ops.maps import rotation_speeds
from keras_rpe.written_file import write_file


class TileSpan(NamedTuple):
    """A tile along an axis, in pixels of the image."""

    first: int  # What it sees.
    end: int
    own_first: int  # What of that is its own.
    own_end: int
    origin: float  # Where its resized image begins, after `first`.
    missing: int  # Cells of its first window that it does not see.
    cells: slice  # Those of its cells that are its own.
    windows: int  # Of its own cells.


@dataclass(frozen=True)
class TileJob:
    """What a worker must know of the image to segment one of its tiles.

    Tiles are whole windows of the grouping of the whole image, so that they group alike.
    """

    image: LargeImage
    model: str | InstanceSegmenter
    folder: Path
    diameter: float
    scale: float
    limits: tuple[float, float]
    windows: tuple[int, int]  # Sides of a window, in cells.
    tile: tuple[int, int]  # Sides of a tile, in pixels of the resized image.
    halo: int  # The same, of what a tile sees beyond its own at least.
    seen: int  # The same, of all that a tile sees: memory is that of its square.
    strides: tuple[int, int]  # Of a cell, and the largest of the network.
    similarity: float  # From which neighboring cells are of one object.
    least: int  # Pixels of the resized image that an instance has.
    least_score: float  # Below which an instance is dropped.
    fragment: int  # Pixels of the resized image up to which components are of their neighbor.

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        rows, columns = (
            max(math.ceil(n * self.scale / side), 1) for n, side in zip(self.image.shape, self.tile)
        )
        return rows, columns

    @property
    def reach(self) -> int:
        """By how many pixels of the image a tile sees beyond its own at least."""
        return max(math.floor(self.halo / self.scale) - 3, 1)

    def file(self, place: tuple[int, ...]) -> Path:
        """Where what a tile has found is written."""
        return self.folder / f"{place[0]:05d}_{place[1]:05d}.npz"

    def border(self, axis: int, index: int) -> int:
        """Where a tile's own part begins along an axis; the last border is the image's end."""
        if index == self.grid[axis]:
            return self.image.shape[axis]
        return min(round(index * self.tile[axis] / self.scale), self.image.shape[axis])

    def span(self, axis: int, index: int) -> TileSpan:
        """Where a tile lies along an axis."""
        cell, stride = self.strides
        resized = math.ceil(self.image.shape[axis] * self.scale)
        borders = index * self.tile[axis], min((index + 1) * self.tile[axis], resized)
        # All tiles see as much, those at an end further inwards: memory is kept for each size, and
        # the first and the last window of the image see all their overlap on one side.
        whole = -(-resized // stride) * stride
        begin = min(max(borders[0] - self.halo, 0), max(whole - self.seen, 0)) // stride * stride
        first = math.floor(begin / self.scale)
        ends = begin + self.seen >= whole  # With the image, to the pixel.
        end = self.image.shape[axis] if ends else first + math.floor(self.seen / self.scale)
        return TileSpan(
            first,
            end,
            self.border(axis, index),
            self.border(axis, index + 1),
            begin / self.scale - first,
            begin // cell % self.windows[axis],
            slice(*(-(-(at - begin) // cell) for at in borders)),
            -(-(borders[1] - borders[0]) // (cell * self.windows[axis])),
        )


@functools.cache
def loaded_segmenter(model: str) -> InstanceSegmenter:
    """Load a preset or a `.keras` file, once in a process."""
    from keras_rpe.models import load_keras_file

    loaded: Any = load_keras_file(model) if model.endswith(".keras") else Task.from_preset(model)
    if not isinstance(loaded, InstanceSegmenter):
        raise ValueError(f"`model` must be an InstanceSegmenter. Received: {type(loaded).__name__}")
    return loaded


# M_ARENA_MAX, M_TRIM_THRESHOLD and M_MMAP_THRESHOLD: the latter two would grow with what is freed.
_MALLOC_OPTIONS = {-8: 1, -1: 2**17, -3: 2**17}
_ONE_AT_A_TIME = threading.Lock()  # Workers may have several threads, and a model is not for them.


def corner_and_contrast(
    image: LargeImage, side: int, corner: tuple[int, int]
) -> tuple[tuple[int, int], float]:
    """The corner of a square of the image, and the standard deviation of its pixels."""
    return corner, float(_square(image, side, corner).std())


def part_diameter(
    image: LargeImage, model: str | InstanceSegmenter, side: int, corner: tuple[int, int]
) -> float:
    """The diameter of the objects in a square of the image."""
    pixels = _square(image, side, corner)
    with _ONE_AT_A_TIME:
        return _segmenter(model).predict_diameter(pixels)


def _square(image: LargeImage, side: int, corner: tuple[int, int]) -> np.ndarray:
    return image.read(*(slice(at, at + side) for at in corner))


def _segmenter(model: str | InstanceSegmenter) -> InstanceSegmenter:
    return loaded_segmenter(model) if isinstance(model, str) else model


@functools.cache
def _frugal_c_library() -> ctypes.CDLL | None:
    """The GNU C library, told to keep no freed memory for later; `None` where it is another."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        return None
    for parameter, value in _MALLOC_OPTIONS.items():
        library.mallopt(parameter, value)
    return library


def segment_tile(job: TileJob, place: tuple[int, ...]) -> None:
    """Segment a tile, and write what is its own and what it sees beyond its borders."""
    library = _frugal_c_library()
    rows, columns = spans = [job.span(axis, index) for axis, index in enumerate(place)]
    pixels = job.image.read(*(slice(one.first, one.end) for one in spans))
    with _ONE_AT_A_TIME:
        model = _segmenter(job.model)
        # Where there are no fragments, cells say by themselves what is linked to what.
        own = None if job.fragment else (*_ends(rows.cells), *_ends(columns.cells))
        # Then its own windows are enough, if they see the cells beside them.
        few = own is not None and model.inference_window_overlap > 0
        (high, row), (wide, column) = (
            (side, (-one.cells.start, one.windows) if few else (one.missing,))
            for side, one in zip(job.windows, spans)
        )
        found = model.predict_part(
            pixels,
            job.diameter,
            job.limits,
            (rows.origin, columns.origin),
            own,
            ((high, *row), (wide, *column)),
        )
    # Cells from the corner of the image to that of the tile.
    corners = [
        index * side // job.strides[0] - one.cells.start
        for index, side, one in zip(place, job.tile, spans)
    ]
    inner = tuple(slice(one.own_first - one.first, one.own_end - one.first) for one in spans)
    ids = np.unique(found["labels"][inner])
    ids = ids[ids > 0]
    numbers = np.zeros(int(found["labels"].max(initial=0)) + 1, np.int32)
    numbers[ids] = np.arange(1, len(ids) + 1)
    labels = numbers[found["labels"]]
    core = labels[inner]
    corner = np.array([rows.own_first, columns.own_first])
    pixel_rows, pixel_columns = np.nonzero(core)
    flat, count = core[pixel_rows, pixel_columns], len(ids) + 1
    boxes = [
        [[s.start for s in box], [s.stop for s in box]] for box in find_objects(core, len(ids))
    ]
    content = {
        "core": core,
        **{
            f"{name}{axis}_seen": _seen(job, labels, axis, spans[axis].first, border)
            for axis in (0, 1)
            for name, border in (("first", spans[axis].own_first), ("last", spans[axis].own_end))
        },
        **_edges(
            numbers[found["cells"]],
            _turned(found["modes"], model, corners),
            rows.cells,
            columns.cells,
        ),
        "area": np.bincount(flat, minlength=count)[1:],
        "rows": np.bincount(flat, pixel_rows + corner[0], count)[1:],
        "columns": np.bincount(flat, pixel_columns + corner[1], count)[1:],
        "box": (np.array(boxes, np.int64).reshape(-1, 2, 2) + corner).reshape(-1, 4),
        "score": found["scores"][ids - 1],
        "class": found["classes"][ids - 1],
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    write_file(job.file(place), buffer.getvalue())
    if library is not None:
        library.malloc_trim(0)


def _ends(cells: slice) -> tuple[int, int]:
    return cells.start, cells.stop


def _seen(job: TileJob, labels: np.ndarray, axis: int, first: int, border: int) -> np.ndarray:
    """What a tile sees on both sides of a border along an axis."""
    low, high = max(border - job.reach, 0), min(border + job.reach, job.image.shape[axis])
    part = slice(low - first, high - first)
    return labels[part] if axis == 0 else labels[:, part]


def _turned(modes: np.ndarray, model: InstanceSegmenter, corner: list[int]) -> np.ndarray:
    """Modes as those of the whole image, whose positions turn them from its own corner on."""
    periods = model.get_layer("embedding").position_periods
    if not periods:
        return modes
    half = modes.shape[-1] // 2
    down, across = rotation_speeds(half, periods)
    turn = np.exp(1j * (corner[0] * down + corner[1] * across))
    turned = (modes[..., :half] + 1j * modes[..., half:]) * turn
    return np.concatenate([turned.real, turned.imag], axis=-1)


def _edges(
    cells: np.ndarray, modes: np.ndarray, rows: slice, columns: slice
) -> dict[str, np.ndarray]:
    """Labels and modes of a tile's own first and last cells along both axes, and those beyond."""
    labels = np.pad(cells, 1)[rows.start : rows.stop + 2, columns.start : columns.stop + 2]
    # What cells beyond are linked to, their own tile knows better.
    beyond = np.where(np.isin(labels, labels[1:-1, 1:-1]), 0, labels)
    modes = modes[rows, columns]
    edges: dict[str, np.ndarray] = {}
    for name, out, at, end in (("first", 0, 1, 0), ("last", -1, -2, -1)):
        edges |= {f"{name}0": labels[at, 1:-1], f"{name}1": labels[1:-1, at]}
        edges |= {f"{name}0_beyond": beyond[out, 1:-1], f"{name}1_beyond": beyond[1:-1, out]}
        edges |= {f"{name}0_modes": modes[end], f"{name}1_modes": modes[:, end]}
    return edges
