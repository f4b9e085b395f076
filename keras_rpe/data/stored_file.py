"""A file by itself or inside a tar archive, read where it lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from PIL.ContainerIO import ContainerIO

from keras_rpe.data.image_file_error import ImageFileError

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
        >>> from keras_rpe.data.stored_file import StoredFile
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
