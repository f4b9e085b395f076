"""Images that are read in parts: arrays, zarr, OME-Zarr, tiled TIFF."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.data.images import ImageFileError
from keras_rpe.layers.images import MOST_LINES
from keras_rpe.optional_import import optional_import

_FEW = 5  # Channels, of an array that does not name its axes.

Place = tuple[slice, slice]
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class LargeImage:
    """One image of any size, of which parts are read.

    Args:
        source: A path of an OME-Zarr image, a zarr array, a TIFF, or `.npy`, or an array: anything
            with `shape`, `dtype` and slices, such as a memory-mapped, a zarr or a dask array. A
            pyramid is read at its full resolution.
        channel: Only this channel, from 1, as gray.
        axes: Names of the axes of the array, such as "CYX"; default: what the file says, or YX,
            YXC or CYX by the shape.

    Attributes:
        shape: Height and width.
        dtype: Of the pixels.
        pixel_size: Side of a pixel in µm, or `None`.

    Raises:
        ImageFileError: If the source cannot be read, has other axes of more than one entry, or
            neither 1, 3 nor 4 channels of which none was chosen.
        ImportError: If the extra `large` is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.large import LargeImage
        >>> image = LargeImage(np.zeros((3, 100, 200), "uint8"))
        >>> image.shape, image.read(slice(0, 10), slice(0, 20)).shape
        ((100, 200), (10, 20, 3))
    """

    def __init__(self, source: Any, channel: int | None = None, axes: str | None = None) -> None:
        self.source = source if hasattr(source, "shape") else Path(source)
        self.name = str(self.source) if isinstance(self.source, Path) else type(source).__name__
        self._opened: tuple[Any, str] | None = None
        self._given_axes, self._channel = axes, channel
        self.pixel_size: float | None = None
        array, names = self._array()
        if array.dtype.kind not in "buif":
            raise ImageFileError(f"{self.name} holds values of type {array.dtype}, not numbers.")
        sizes = dict(zip(names, array.shape))
        for name, size in sizes.items():
            if name not in "YXC" and size != 1:
                raise ImageFileError(
                    f"{self.name} has an axis {name} of {size} entries: choose one of them, as an "
                    "image has the axes Y and X, and C for channels."
                )
        if not {"Y", "X"} <= sizes.keys():
            raise ImageFileError(f"{self.name} has the axes {names}, and needs Y and X.")
        channels = sizes.get("C", 1)
        if channel is not None and not 1 <= channel <= channels:
            raise ImageFileError(
                f"{self.name} has {channels} channels. Received: channel={channel}"
            )
        if channel is None and channels not in (1, 3, 4):
            raise ImageFileError(
                f"{self.name} has {channels} channels, not 1, 3 or 4: choose one by `channel`."
            )
        self.shape = (int(sizes["Y"]), int(sizes["X"]))
        self.dtype = array.dtype
        if 0 in self.shape:
            raise ImageFileError(f"{self.name} is empty: its shape is {array.shape}.")

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: of a file, its path."""
        return {**self.__dict__, "_opened": None}

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Read a part.

        Args:
            rows: Its rows.
            columns: Its columns.

        Returns:
            `(h, w)` or `(h, w, C)`.

        Raises:
            ImageFileError: If it cannot be read, or holds NaN or infinite values.
        """
        array, names = self._array()
        index = {"Y": rows, "X": columns, "C": slice(None)}
        if self._channel is not None:
            index["C"] = slice(self._channel - 1, self._channel)
        try:
            part = np.asarray(array[tuple(index.get(name, slice(0, 1)) for name in names)])
        except Exception as error:  # Of any codec.
            raise ImageFileError(
                f"{self.name} cannot be read in rows {rows.start} to {rows.stop}, columns "
                f"{columns.start} to {columns.stop}: {type(error).__name__} {error}"
            ) from error
        kept = [name for name in names if name in "YXC"]
        part = part.reshape([n for name, n in zip(names, part.shape) if name in "YXC"])
        part = part.transpose([kept.index(name) for name in "YXC" if name in kept])
        if part.ndim == 3 and part.shape[-1] == 1:
            part = part[..., 0]
        if part.dtype == bool:
            part = part.astype(np.uint8)
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise ImageFileError(
                f"{self.name} holds NaN or infinite pixels in rows {rows.start} to {rows.stop}, "
                f"columns {columns.start} to {columns.stop}."
            )
        return part

    def percentiles(
        self, percents: Sequence[float], side: int = 1024, run: Run = map
    ) -> list[float]:
        """Find the nearest-rank percentiles of the gray values, as `ImageNormalization` does.

        Gray is the mean of the first three channels, in float32. As there, at most 2048 rows and
        columns count. Each part is read once.

        Args:
            percents: From 0 to 100.
            side: Of the parts that are read.
            run: Gives the results of a function of each part, in any order.

        Returns:
            The percentiles.

        Raises:
            ImageFileError: If a part cannot be read.

        Example:
            >>> import numpy as np
            >>> from keras_rpe.large import LargeImage
            >>> LargeImage(np.arange(101.0).reshape(1, 101)).percentiles([0, 1, 99])
            [0.0, 1.0, 99.0]
        """
        height, width = self.shape
        parts = [
            (slice(row, min(row + side, height)), slice(column, min(column + side, width)))
            for row, column in itertools.product(range(0, height, side), range(0, width, side))
        ]
        gray = np.concatenate(list(run(functools.partial(_counted, self), parts)))
        ranks = [int((gray.size - 1) * percent / 100 + 0.5) for percent in percents]
        return np.partition(gray, ranks)[ranks].tolist()

    def _array(self) -> tuple[Any, str]:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> tuple[Any, str]:
        if not isinstance(self.source, Path):
            return self.source, self._axes_of(self.source.shape, None)
        path = self.source
        if not path.exists():
            raise ImageFileError(f"{path} does not exist.")
        try:
            if path.is_dir():
                return self._open_zarr(path)
            if path.suffix == ".npy":
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                return array, self._axes_of(array.shape, None)
            return self._open_tiff(path)
        except (ImageFileError, ImportError):
            raise
        except Exception as error:  # Of any damage.
            raise ImageFileError(
                f"{path} cannot be read as an image: {type(error).__name__} {error}"
            ) from error

    def _open_zarr(self, path: Path) -> tuple[Any, str]:
        zarr = optional_import("zarr", "large")
        found = zarr.open(os.fspath(path), mode="r")
        if not isinstance(found, zarr.Group):
            return found, self._axes_of(found.shape, None)
        attributes = dict(found.attrs)
        scales = dict(attributes.get("ome", attributes)).get("multiscales")
        if not scales:
            raise ImageFileError(f"{path} is a zarr group without an OME-Zarr image (multiscales).")
        described = scales[0]
        levels = [found[level["path"]] for level in described["datasets"]]
        axes = [_axis(one) for one in described.get("axes", [])]
        names = "".join(name for name, _ in axes) or None
        for number, level in enumerate(levels):
            if level.ndim != levels[0].ndim or any(
                a > b for a, b in zip(level.shape, levels[0].shape)
            ):
                raise ImageFileError(
                    f"{path} has a level {number} of shape {level.shape} in its pyramid, which is "
                    f"no smaller image of the first, {levels[0].shape}."
                )
        names = self._axes_of(levels[0].shape, names)
        self.pixel_size = _pixel_size(described, axes)
        return levels[0], names

    def _open_tiff(self, path: Path) -> tuple[Any, str]:
        import tifffile

        zarr = optional_import("zarr", "large")
        series = tifffile.TiffFile(path).series
        if not series:
            raise ImageFileError(f"{path} holds no image.")
        if len({one.shape for one in series}) > 1 or len(series) > 1:
            raise ImageFileError(f"{path} holds {len(series)} images: save the one that you need.")
        array = zarr.open(series[0].aszarr(level=0), mode="r")
        from keras_rpe.data import read_pixel_size

        self.pixel_size = read_pixel_size(path)
        names = series[0].axes.replace("S", "C")
        return array, self._axes_of(array.shape, names if "Y" in names else None)

    def _axes_of(self, shape: tuple[int, ...], named: str | None) -> str:
        names = self._given_axes or named
        if names is None:
            few = [size < _FEW for size in shape]
            if len(shape) == 2:
                names = "YX"
            elif len(shape) == 3 and (few[-1] or few[0]):
                names = "YXC" if few[-1] else "CYX"
            else:
                raise ImageFileError(
                    f"{self.name} has the shape {shape}: say by `axes`, such as 'CYX', what its "
                    "axes are."
                )
        if len(names) != len(shape) or len(set(names)) < len(names):
            raise ImageFileError(f"{self.name} has the shape {shape}, but the axes {names}.")
        return names.upper()


def _axis(described: Any) -> tuple[str, str]:
    """Name and unit of an axis of OME-Zarr, whose oldest versions have names only."""
    if isinstance(described, Mapping):
        return str(described["name"]).upper(), str(described.get("unit", ""))
    return str(described).upper(), ""


def _pixel_size(described: Mapping[str, Any], axes: list[tuple[str, str]]) -> float | None:
    for transform in described["datasets"][0].get("coordinateTransformations", []):
        if transform.get("type") == "scale":
            for (name, unit), size in zip(axes, transform["scale"]):
                if name == "X" and unit == "micrometer":
                    return float(size)
    return None


def _counted(image: LargeImage, place: Place) -> np.ndarray:
    """The gray values of the rows and columns of a part that count."""
    steps = [-(-side // MOST_LINES) for side in image.shape]
    rows, columns = (slice(-one.start % step, None, step) for one, step in zip(place, steps))
    part = image.read(*place)[rows, columns].astype(np.float32)
    gray = part if part.ndim == 2 else part[..., :3].mean(axis=-1, dtype=np.float32)
    return gray.ravel()
