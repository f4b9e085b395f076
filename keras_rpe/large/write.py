"""Write label images part by part."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_rpe.large.join import JoinedLabels
from keras_rpe.large.tiles import TileJob
from keras_rpe.optional_import import optional_import

_CHUNK = 512  # Side of the parts in which labels are stored.


def write_tiff(job: TileJob, path: Path, labels: JoinedLabels) -> None:
    """Write a tiled BigTIFF."""
    import tifffile

    height, width = job.image.shape

    def tiles() -> Iterator[np.ndarray]:
        for top, left in itertools.product(range(0, height, _CHUNK), range(0, width, _CHUNK)):
            part = labels.read(top, left, _CHUNK)
            yield np.pad(part, [(0, _CHUNK - n) for n in part.shape])

    size = job.image.pixel_size
    tifffile.imwrite(
        path,
        tiles(),
        shape=job.image.shape,
        dtype="int32",
        tile=(_CHUNK, _CHUNK),
        compression="zlib",
        bigtiff=True,
        photometric="minisblack",
        resolution=None if size is None else (1e4 / size, 1e4 / size),
        resolutionunit=None if size is None else "CENTIMETER",
    )


def write_zarr(job: TileJob, path: Path, labels: JoinedLabels) -> None:
    """Write an OME-Zarr image of labels."""
    zarr = optional_import("zarr", "large")
    shutil.rmtree(path, ignore_errors=True)
    height, width = job.image.shape
    size = job.image.pixel_size or 1.0
    unit = {} if job.image.pixel_size is None else {"unit": "micrometer"}
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
    array = group.create_array("0", shape=job.image.shape, chunks=(_CHUNK,) * 2, dtype="int32")
    for top, left in itertools.product(range(0, height, _CHUNK), range(0, width, _CHUNK)):
        part = labels.read(top, left, _CHUNK)
        array[top : top + part.shape[0], left : left + part.shape[1]] = part
