"""Files of data sets: images, in tar archives too, which are not unpacked, and MATLAB files."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.ContainerIO import ContainerIO

from keras_rpe.checkpoints.matlab import read_matlab
from keras_rpe.checkpoints.report import CheckpointError
from keras_rpe.data.images import MAX_PIXELS, MIN_SIDE, PILLOW_FORMATS, ImageFileError

MAX_FILE_BYTES = 256 * 2**20
MAX_ENTRIES = 200_000


class StoredFile(NamedTuple):
    """A file, or the bytes of one inside an archive that does not compress."""

    path: Path  # the file, or the archive
    entry: str | None = None  # the name inside the archive
    offset: int = 0
    size: int | None = None  # None: to the end of the file

    def __str__(self) -> str:
        return str(self.path) if self.entry is None else f"{self.entry} in {self.path}"

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open it; an `ImageFileError` says what is wrong with the file, or went wrong inside."""
        try:
            with self.path.open("rb") as file:
                there = os.fstat(file.fileno()).st_size - self.offset
                size = there if self.size is None else self.size
                if size <= 0:
                    raise ImageFileError(f"{self} is empty (0 bytes).")
                if size > MAX_FILE_BYTES:
                    raise ImageFileError(
                        f"{self} has {size} bytes, more than the {MAX_FILE_BYTES} that are read."
                    )
                if size > there:
                    raise ImageFileError(f"{self} is cut short: {there} of {size} bytes are there.")
                yield ContainerIO(file, self.offset, size)
        except FileNotFoundError:
            raise ImageFileError(f"{self} does not exist.") from None
        except Image.UnidentifiedImageError:
            raise ImageFileError(f"{self} is not a PNG or JPEG image.") from None
        except ImageFileError:
            raise
        except Exception as error:
            raise ImageFileError(f"{self} cannot be read: {_reason(error)}.") from error

    def read(self) -> bytes:
        """Its bytes; errors as those of `open`."""
        with self.open() as file:
            return file.read()


@contextmanager
def open_image(file: StoredFile, mode: str | None = None) -> Iterator[Image.Image]:
    """Open a PNG or JPEG and check its header; with `mode`, it must be a PNG of Pillow's mode."""
    with file.open() as stream, Image.open(stream, formats=PILLOW_FORMATS) as image:
        width, height = image.size
        if min(height, width) < MIN_SIDE:
            raise ImageFileError(
                f"{file} has {height} x {width} pixels, fewer than {MIN_SIDE} on a side."
            )
        if height * width > MAX_PIXELS:
            raise ImageFileError(
                f"{file} claims {height} x {width} pixels, more than the {MAX_PIXELS} read."
            )
        if mode is not None and (image.format, image.mode) != ("PNG", mode):
            kind = {"P": "with a palette, whose indices are the labels", "RGB": "of three channels"}
            raise ImageFileError(
                f"{file} is a {image.format} of the mode {image.mode}, not a PNG {kind[mode]}."
            )
        yield image


def check_size(file: Any, size: Sequence[int], other: Sequence[int], whose: Any) -> None:
    """Raise an `ImageFileError` where two sizes (height, width) differ."""
    if tuple(size) != tuple(other):
        raise ImageFileError(
            f"{file} has {size[0]} x {size[1]} pixels, not the {other[0]} x {other[1]} of {whose}."
        )


def read_photo(file: StoredFile) -> np.ndarray:
    """Read a photograph as uint8 (H, W, 3), gray thrice."""
    with open_image(file) as image:
        return np.array(image.convert("RGB"))


def tar_index(path: Path, wanted: re.Pattern[str]) -> dict[str, StoredFile]:
    """List the regular files of an uncompressed archive whose names match, without a leading `./`.

    Only headers are read. A missing, damaged or cut archive raises an `ImageFileError`.
    """
    found: dict[str, StoredFile] = {}
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            total, end = os.fstat(stream.fileno()).st_size, 0
            for count, entry in enumerate(tar):
                if count >= MAX_ENTRIES:
                    raise ImageFileError(f"{path} holds more than {MAX_ENTRIES} entries.")
                if entry.size < 0 or entry.offset_data <= end:
                    raise tarfile.TarError(f"{entry.name} lies at a damaged place")
                end = entry.offset_data
                if end + entry.size > total and entry.isreg():
                    raise tarfile.TarError(f"it is cut short within {entry.name}")
                name = entry.name.removeprefix("./")
                if entry.isreg() and not entry.issparse() and wanted.fullmatch(name):
                    if name in found:
                        raise ImageFileError(f"{path} holds {name} twice.")
                    found[name] = StoredFile(path, name, end, entry.size)
            stream.seek(tar.offset)
            # A damaged header ends the archive for tarfile just as its end mark does.
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.TarError(f"it has no end mark after {len(found)} of its files")
    except ImageFileError:
        raise
    except Exception as error:
        raise ImageFileError(
            f"{path} cannot be read as a tar archive without compression: {_reason(error)}."
        ) from None
    return found


def matlab_variable(path: str | Path, name: str) -> Any:
    """Read a variable of a MATLAB file, as `read_matlab` gives it."""
    if not Path(path).is_file():
        reason = "is a folder, not a MATLAB file" if Path(path).is_dir() else "does not exist"
        raise ImageFileError(f"{path} {reason}.")
    try:
        variables = read_matlab(path, (name,), MAX_FILE_BYTES)
    except CheckpointError as error:
        raise ImageFileError(f"{path} cannot be read: {error}") from None
    if name not in variables:
        raise ImageFileError(f"{path} has no variable {name}.")
    return variables[name]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
