"""Find the files inside a tar archive without unpacking it."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.stored_file import StoredFile

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
        >>> from keras_rpe.data.tar_index import tar_index
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
