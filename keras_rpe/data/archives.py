"""Files of data sets in folders and tar archives."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image
from PIL.ContainerIO import ContainerIO

from keras_rpe.data.images import MAX_PIXELS, MIN_SIDE, PILLOW_FORMATS, ImageFileError

MAX_FILE_BYTES = 256 * 2**20
"""The largest file that is read."""


class StoredFile(NamedTuple):
    """A file, or the bytes of one inside an archive that does not compress.

    Attributes:
        path: The file, or the archive.
        entry: The name inside the archive; `None` for a file by itself.
        offset: Where its bytes start.
        size: How many there are; `None`: to the end of the file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from keras_rpe.data.archives import StoredFile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "list.txt"
        ...     _ = path.write_bytes(b"plane cat")
        ...     StoredFile(path, "cat.txt", 6, 3).read()
        b'cat'
    """

    path: Path
    entry: str | None = None
    offset: int = 0
    size: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.entry is None else f"{self.entry} in {self.path}"

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The file for reading, from its first byte to its last.

        Raises:
            ImageFileError: If it is missing, a folder, empty, cut short or larger than 256 MiB.
        """
        try:
            if self.path.is_dir():
                raise ImageFileError(f"{self} is a folder, not a file.")
            file = self.path.open("rb")
        except FileNotFoundError:
            raise ImageFileError(f"{self} does not exist.") from None
        except (OSError, ValueError) as error:
            raise ImageFileError(f"{self} cannot be opened: {_reason(error)}.") from None
        with file:
            there = os.fstat(file.fileno()).st_size - self.offset
            size = there if self.size is None else self.size
            if size > MAX_FILE_BYTES:
                raise ImageFileError(
                    f"{self} has {size} bytes, more than the {MAX_FILE_BYTES} that are read."
                )
            if size > there:
                raise ImageFileError(f"{self} is cut short: {there} of {size} bytes are there.")
            if size <= 0:
                raise ImageFileError(f"{self} is empty (0 bytes).")
            yield ContainerIO(file, self.offset, size)

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            ImageFileError: As `open`.
        """
        with self.open() as file:
            try:
                return file.read()
            except OSError as error:
                raise ImageFileError(f"{self} cannot be read: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".")[:200] or type(error).__name__


class StoredHeader(NamedTuple):
    """What an image file says of itself.

    Attributes:
        height: Rows of pixels.
        width: Columns of pixels.
        mode: Pillow's name of how pixels are stored, such as "P" for a palette.
        kind: "PNG" or "JPEG".
    """

    height: int
    width: int
    mode: str
    kind: str


def read_stored_header(file: StoredFile) -> StoredHeader:
    """Read the header of a PNG or JPEG file.

    Args:
        file: The file.

    Returns:
        What it says.

    Raises:
        ImageFileError: If it is missing, no PNG or JPEG, smaller than 8 pixels on a side, or
            claims more pixels than are read.
    """
    with file.open() as stream:
        try:
            with Image.open(stream, formats=PILLOW_FORMATS) as image:
                width, height = image.size
                header = StoredHeader(height, width, image.mode, image.format or "")
        except Image.DecompressionBombError:
            raise ImageFileError(f"{file} claims more pixels than Pillow reads safely.") from None
        except Image.UnidentifiedImageError:
            raise ImageFileError(f"{file} is not a PNG or JPEG image.") from None
        except Exception as error:
            raise _unreadable(file, error) from error
    if min(height, width) < MIN_SIDE:
        raise ImageFileError(f"{file} has {height} x {width} pixels, fewer than 8 on a side.")
    if height * width > MAX_PIXELS:
        raise ImageFileError(
            f"{file} claims {height} x {width} pixels, more than the {MAX_PIXELS} that are read."
        )
    return header


def read_photo(file: StoredFile) -> np.ndarray:
    """Read a photograph as uint8 (H, W, 3), gray thrice; `read_stored_header` has the errors."""
    read_stored_header(file)
    return _pixels(file, "RGB")


def read_palette_labels(file: StoredFile) -> np.ndarray:
    """Read the indices of a palette image, as PASCAL VOC stores labels.

    Args:
        file: A PNG file with a palette.

    Returns:
        uint8 (H, W).

    Raises:
        ImageFileError: As `read_stored_header`, or if it is no PNG with a palette.
    """
    check_palette(file, read_stored_header(file))
    return _pixels(file, "P")


def check_palette(file: StoredFile, header: StoredHeader) -> None:
    """Raise `ImageFileError` where a file is no PNG with a palette."""
    if header.kind != "PNG" or header.mode != "P":
        raise ImageFileError(
            f"{file} is a {header.kind} of the mode {header.mode}, not a PNG with a palette, whose "
            "indices are the labels."
        )


def read_color_ids(file: StoredFile) -> np.ndarray:
    """Read the ids R + 256 G + 65536 B of a PNG, as COCO stores panoptic segments.

    Args:
        file: A PNG file of 3 channels of 8 bits.

    Returns:
        int32 (H, W).

    Raises:
        ImageFileError: As `read_stored_header`, or if it is no such PNG.
    """
    header = read_stored_header(file)
    if header.kind != "PNG" or header.mode != "RGB":
        raise ImageFileError(
            f"{file} is a {header.kind} of the mode {header.mode}, not a PNG of three channels."
        )
    return _pixels(file, "RGB").astype(np.int32) @ np.array([1, 256, 65536], np.int32)


def _pixels(file: StoredFile, mode: str) -> np.ndarray:
    with file.open() as stream:
        try:
            with Image.open(stream, formats=PILLOW_FORMATS) as image:
                # The call decodes, and says so where the file is cut short.
                return np.array(image if image.mode == mode else image.convert(mode))
        except Exception as error:
            raise _unreadable(file, error) from error


def _unreadable(file: StoredFile, error: Exception) -> ImageFileError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ImageFileError(f"{file} cannot be read as an image: {reason[:200]}.")


MAX_ENTRIES = 200_000
"""The largest number of entries that an archive may have."""

_BLOCK = 512


def tar_index(path: str | Path, wanted: re.Pattern[str]) -> dict[str, StoredFile]:
    r"""List files of an archive by their names, with the places of their bytes.

    Headers are read, and no bytes of files; nothing is written. Links and other special entries
    are passed over, whatever their names.

    Args:
        path: A tar archive that is not compressed.
        wanted: What the whole name of a file needs to match; a leading `./` is left out.

    Returns:
        The files by their names.

    Raises:
        ImageFileError: If the archive is missing, compressed, cut short or damaged, or holds a
            wanted file twice.

    Example:
        >>> import io, re, tarfile, tempfile
        >>> from keras_rpe.data.archives import tar_index
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with tarfile.open(folder + "/two.tar", "w") as tar:
        ...         for name, text in (("./a.txt", b"one"), ("../b.txt", b"two")):
        ...             entry = tarfile.TarInfo(name)
        ...             entry.size = len(text)
        ...             tar.addfile(entry, io.BytesIO(text))
        ...     found = tar_index(folder + "/two.tar", re.compile(r"\w+\.txt"))
        ...     {name: file.read() for name, file in found.items()}
        {'a.txt': b'one'}
    """
    path = Path(path)
    if not path.is_file():
        raise ImageFileError(f"{path} does not exist, or is no file.")
    found: dict[str, StoredFile] = {}
    total = path.stat().st_size
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            end = 0
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
            if stream.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.TarError(f"it has no end mark after {len(found)} of its files")
    except (tarfile.TarError, EOFError, OverflowError, RecursionError, ValueError) as error:
        if isinstance(error, ImageFileError):
            raise
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ImageFileError(
            f"{path} cannot be read as a tar archive without compression: {reason[:200]}."
        ) from None
    return found
