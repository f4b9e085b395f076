"""Join what the tiles of a large image have found."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_rpe.large.image import Run
from keras_rpe.large.tiles import TileJob
from keras_rpe.optional_import import optional_import

TIFF_ENDINGS = (".tif", ".tiff")
_SAME = 0.5  # IoU from which what two tiles see of an object is one.
_GROWN = 2  # Times its area, of a fragment with the seams around it.
_CHUNK = 512  # Side of the parts in which labels are stored.
_BLOCK = 4  # Of these in each direction are put together at once.
_FIRST, _NUMBERS = "first.npy", "instances.npy"  # Instance n of a tile is numbers[first + n - 1].


def join_tiles(job: TileJob) -> dict[str, np.ndarray]:
    """The table of all instances; the instance of each object of a tile goes to the folder."""
    keys = ("area", "rows", "columns", "box", "score", "class")
    parts: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    offsets: dict[tuple[int, ...], int] = {}
    total = 0
    for place in itertools.product(*map(range, job.grid)):
        with np.load(job.file(place)) as part:
            for key in keys:
                parts[key].append(part[key])
        offsets[place] = total
        total += len(parts["area"][-1])
    pairs = [np.zeros((0, 2), np.int64)]
    for place, axis in itertools.product(offsets, (0, 1)):
        after = (place[0] + (axis == 0), place[1] + (axis == 1))
        if after in offsets:
            with np.load(job.file(place)) as one, np.load(job.file(after)) as other:
                linked = _linked(one, other, axis, job.similarity)
                more = (
                    _fragments(job, one, other, axis)
                    if job.fragment
                    else _same_cells(one, other, axis)
                )
            linked = np.concatenate([linked, more])
            pairs.append(linked + np.array([offsets[place], offsets[after]]) - 1)
    links = np.concatenate(pairs)
    graph = coo_array((np.ones(len(links), bool), links.T), (total, total))
    _, joined = connected_components(graph, directed=False)
    table = {key: np.concatenate(values) for key, values in parts.items()}
    # Instances of few pixels or a low score are dropped, and have number 0.
    areas = np.bincount(joined, table["area"])
    scores = np.bincount(joined, table["area"] * table["score"]) / np.maximum(areas, 1)
    kept = (areas * job.scale**2 >= job.least) & (scores >= job.least_score)
    names = np.cumsum(kept) * kept
    numbers, count = names[joined], int(kept.sum())
    np.save(job.folder / _FIRST, np.reshape([*offsets.values()], job.grid))
    np.save(job.folder / _NUMBERS, numbers.astype(np.int32))
    there = numbers > 0
    numbers = numbers[there] - 1
    table = {key: values[there] for key, values in table.items()}
    area = areas[kept]
    box = np.zeros((count, 4), np.int64)
    box[:, :2] = np.iinfo(np.int64).max
    np.minimum.at(box[:, :2], numbers, table["box"][:, :2])
    np.maximum.at(box[:, 2:], numbers, table["box"][:, 2:])
    # The class of the largest part.
    kinds = np.zeros(count, np.int64)
    order = np.argsort(table["area"], kind="stable")
    kinds[numbers[order]] = table["class"][order]

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(numbers, values, count) / np.maximum(area, 1)

    return {
        "instance": np.arange(1, count + 1),
        "class": kinds,
        "score": scores[kept],
        "area_px": area.astype(np.int64),
        "centroid_row": mean(table["rows"]),
        "centroid_column": mean(table["columns"]),
        **dict(zip(("top", "left", "bottom", "right"), box.T)),
    }


def _linked(one: Any, other: Any, axis: int, similarity: float) -> np.ndarray:
    """Pairs of labels `(n, 2)` of cells that touch across a border, as the decoder links them."""
    labels = one[f"last{axis}"], other[f"first{axis}"]
    modes = one[f"last{axis}_modes"], other[f"first{axis}_modes"]
    pairs = []
    for shift in (-1, 0, 1):
        here = slice(max(-shift, 0), len(labels[0]) - max(shift, 0))
        there = slice(max(shift, 0), len(labels[0]) - max(-shift, 0))
        alike = 0.5 + 0.5 * np.sum(modes[0][here] * modes[1][there], axis=-1) >= similarity
        both = np.stack([labels[0][here], labels[1][there]], axis=1)
        pairs.append(both[alike & (both > 0).all(axis=1)])
    return np.concatenate(pairs)


def _same_cells(one: Any, other: Any, axis: int) -> np.ndarray:
    """Pairs of labels `(n, 2)` of one cell, which is a tile's own and beside the other's own."""
    after = np.stack([one[f"last{axis}_beyond"], other[f"first{axis}"]], axis=1)
    before = np.stack([one[f"last{axis}"], other[f"first{axis}_beyond"]], axis=1)
    pairs = np.concatenate([after, before])
    return pairs[(pairs > 0).all(axis=1)]


def _fragments(job: TileJob, one: Any, other: Any, axis: int) -> np.ndarray:
    """Pairs of labels `(n, 2)` of which one is a fragment of the other, though modes differ."""
    pairs = _same_objects(one[f"last{axis}_seen"], other[f"first{axis}_seen"])
    areas = one["area"][pairs[:, 0] - 1], other["area"][pairs[:, 1] - 1]
    return pairs[np.minimum(*areas) * job.scale**2 < _GROWN * job.fragment]


def _same_objects(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pairs of labels `(n, 2)` that two tiles gave to one object, by what both see of it."""
    width = int(other.max(initial=0)) + 1
    values, shared = np.unique(one.astype(np.int64) * width + other, return_counts=True)
    pairs = np.stack([values // width, values % width], axis=1)
    areas = [np.bincount(labels.ravel()) for labels in (one, other)]
    union = areas[0][pairs[:, 0]] + areas[1][pairs[:, 1]] - shared
    return pairs[(pairs > 0).all(axis=1) & (shared > _SAME * union)]


class JoinedLabels:
    """The labels of the whole image, of which blocks are put together from those of the tiles."""

    def __init__(self, job: TileJob) -> None:
        self.job = job
        self.borders = [
            [job.border(axis, k) for k in range(n + 1)] for axis, n in enumerate(job.grid)
        ]

    def _core(self, place: tuple[int, ...]) -> np.ndarray:
        with np.load(self.job.file(place)) as part:
            core = part["core"]
        first = int(np.load(self.job.folder / _FIRST, mmap_mode="r")[place])
        numbers = np.load(self.job.folder / _NUMBERS, mmap_mode="r")
        own = numbers[first : first + int(core.max(initial=0))]
        return np.concatenate([np.zeros(1, np.int32), own])[core]

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Read a part, or what there is of it."""
        corner, sides = (top, left), (height, width)
        ends = [min(at + n, end) for at, n, end in zip(corner, sides, self.job.image.shape)]
        labels = np.zeros([end - at for at, end in zip(corner, ends)], np.int32)
        touched = [
            range(bisect_right(borders, at) - 1, bisect_left(borders, end))
            for borders, at, end in zip(self.borders, corner, ends)
        ]
        for place in itertools.product(*touched):
            inner, own = [], []
            for k, borders, at, end in zip(place, self.borders, corner, ends):
                first, last = max(borders[k], at), min(borders[k + 1], end)
                inner.append(slice(first - at, last - at))
                own.append(slice(first - borders[k], last - borders[k]))
            labels[tuple(inner)] = self._core(place)[tuple(own)]
        return labels

    def write(self, path: Path, run: Run = map) -> None:
        """Write a tiled BigTIFF, or an OME-Zarr image of labels, as the ending says.

        `run` gives the results of a function of each block of the OME-Zarr, in any order.
        """
        if path.suffix in TIFF_ENDINGS:
            self._write_tiff(path)
        else:
            self._create_zarr(path)
            for _ in run(functools.partial(self._write_block, path), self._places(_BLOCK * _CHUNK)):
                pass

    def _places(self, rows: int) -> Iterator[tuple[int, int]]:
        height, width = self.job.image.shape
        return itertools.product(range(0, height, rows), range(0, width, _BLOCK * _CHUNK))

    def _write_tiff(self, path: Path) -> None:
        import tifffile

        def tiles() -> Iterator[np.ndarray]:
            for place in self._places(_CHUNK):
                strip = self.read(*place, _CHUNK, _BLOCK * _CHUNK)
                for left in range(0, strip.shape[1], _CHUNK):
                    part = strip[:, left : left + _CHUNK]
                    yield np.pad(part, [(0, _CHUNK - n) for n in part.shape])

        size = self.job.image.pixel_size
        tifffile.imwrite(
            path,
            tiles(),
            shape=self.job.image.shape,
            dtype="int32",
            tile=(_CHUNK, _CHUNK),
            compression="zlib",
            bigtiff=True,
            photometric="minisblack",
            resolution=None if size is None else (1e4 / size, 1e4 / size),
            resolutionunit=None if size is None else "CENTIMETER",
        )

    def _create_zarr(self, path: Path) -> None:
        zarr = optional_import("zarr", "large")
        shutil.rmtree(path, ignore_errors=True)
        size = self.job.image.pixel_size or 1.0
        unit = {} if self.job.image.pixel_size is None else {"unit": "micrometer"}
        group = zarr.open_group(os.fspath(path), mode="w", zarr_format=3)
        scale = [{"type": "scale", "scale": [size, size]}]
        group.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [
                {
                    "axes": [{"name": name, "type": "space", **unit} for name in "yx"],
                    "datasets": [{"path": "0", "coordinateTransformations": scale}],
                }
            ],
            "image-label": {},
        }
        group.create_array("0", shape=self.job.image.shape, chunks=(_CHUNK,) * 2, dtype="int32")

    def _write_block(self, path: Path, place: tuple[int, int]) -> None:
        """Write whole chunks, so that nobody else writes to them."""
        array = optional_import("zarr", "large").open_group(os.fspath(path), mode="r+")["0"]
        block = self.read(*place, _BLOCK * _CHUNK, _BLOCK * _CHUNK)
        top, left = place
        array[top : top + block.shape[0], left : left + block.shape[1]] = block
