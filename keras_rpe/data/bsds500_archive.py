"""Take the images and annotations of BSDS500 out of its public archive."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from pathlib import Path

from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.written_file import write_file

MAX_FILE_BYTES = 16 * 2**20
"""The largest file that is taken out of an archive."""

MAX_BYTES = 2 * 2**30
"""The largest size of all files of an archive together, those passed over too."""

_WANTED = re.compile(
    r"(?:\./)?BSR/BSDS500/data/"
    r"(?:(images)/(train|val|test)/([\w-]+\.jpg)|(groundTruth)/(train|val|test)/([\w-]+\.mat))",
    re.ASCII,
)
_MAX_ENTRIES = 100_000
_LAST_BYTES = 2**20


def unpack_bsds500(archive: str | Path, folder: str | Path) -> Path:
    """Unpack `BSR_bsds500.tgz`, as Berkeley publishes it, into a folder for `bsds500`.

    Only `BSR/BSDS500/data/{images,groundTruth}/{train,val,test}/NAME.{jpg,mat}` are written, as
    `{images,groundTruth}/...` inside the folder; links, other files and other places are passed
    over. Each file is written whole or not at all.

    Args:
        archive: The archive, a tar file that gzip compressed.
        folder: The folder to write to, made where it is missing.

    Returns:
        The folder.

    Raises:
        ImageFileError: If the archive is missing, damaged, larger than 2 GiB unpacked, holds an
            image or annotation larger than 16 MiB or twice, or none at all.
        OSError: If a file cannot be written.

    Example:
        >>> import io, tarfile, tempfile
        >>> from pathlib import Path
        >>> from keras_rpe.data import unpack_bsds500
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     archive = Path(folder) / "BSR_bsds500.tgz"
        ...     with tarfile.open(archive, "w:gz") as tar:
        ...         for name in ("BSR/BSDS500/data/images/val/plane.jpg", "BSR/README"):
        ...             tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        ...     unpacked = unpack_bsds500(archive, Path(folder) / "bsds500")
        ...     [file.relative_to(unpacked).as_posix() for file in unpacked.rglob("*.*")]
        ['images/val/plane.jpg']
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise ImageFileError(f"{archive} does not exist, or is no file.")
    written: set[Path] = set()
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            total = 0
            for count, entry in enumerate(tar):
                total += entry.size
                if total > MAX_BYTES or count >= _MAX_ENTRIES:
                    raise ImageFileError(
                        f"{archive} holds more than {MAX_BYTES} bytes or {_MAX_ENTRIES} entries."
                    )
                match = _WANTED.fullmatch(entry.name)
                if match is None or not entry.isreg():
                    continue
                if entry.size > MAX_FILE_BYTES:
                    raise ImageFileError(
                        f"{archive} holds {entry.name} of {entry.size} bytes, more than the "
                        f"{MAX_FILE_BYTES} that are taken."
                    )
                target = folder.joinpath(*(part for part in match.groups() if part))
                if target in written:
                    raise ImageFileError(f"{archive} holds {entry.name} twice.")
                file = tar.extractfile(entry)
                assert file is not None  # it is one for regular files
                content = file.read()
                if len(content) != entry.size:
                    raise EOFError("the file ends early")
                target.parent.mkdir(parents=True, exist_ok=True)
                write_file(target, content)
                written.add(target)
            # The check sum lies behind the end of the tar file, which fills up a last block.
            if len(stream.read(_LAST_BYTES)) == _LAST_BYTES:
                raise EOFError("it goes on behind its end")
    except (tarfile.TarError, EOFError, zlib.error, OverflowError) as error:
        raise _damaged(archive, error) from None
    except OSError as error:
        # What gzip says of damaged bytes has no number of the system's.
        if error.errno is not None:
            raise
        raise _damaged(archive, error) from None
    if not written:
        raise ImageFileError(f"{archive} holds nothing in BSR/BSDS500/data.")
    return folder


def _damaged(archive: Path, error: Exception) -> ImageFileError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ImageFileError(f"{archive} cannot be read as a tar.gz archive: {reason[:200]}.")
