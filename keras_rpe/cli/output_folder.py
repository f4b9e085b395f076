"""The folder that a command writes into."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def output_folder(path: Path, option: str = "--out") -> Iterator[Path]:
    """Make a folder to write into, and remove it again if nothing was written.

    Args:
        path: The folder; it and those above it are made where they are missing.
        option: The option that an error names.

    Yields:
        The folder.

    Raises:
        ValueError: If it, or one above it, is a file.
        OSError: If it cannot be made or written.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> with output_folder(Path(folder) / "a" / "b") as made:
        ...     made.is_dir()
        True
        >>> (Path(folder) / "a").exists()
        False
    """
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{option} needs a folder, but {folder} is a file.")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        _check_writable(path, option)
        yield path
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _check_writable(folder: Path, option: str) -> None:
    """Find out before hours of work whether files can be made and filled here."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise OSError(
            error.errno, f"{option} cannot be written, {error.strerror}", str(folder)
        ) from error
