"""Presets in a zip file at an https address, trusted by its checksum."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import requests

from keras_rpe.models.presets.model_config import first_line
from keras_rpe.models.presets.preset_error import PresetError
from keras_rpe.models.presets.preset_files import CONFIG, FILES
from keras_rpe.models.presets.zip_member import copy_member

_HANDLE = re.compile(r"(?P<url>https://[^#\s]+)#sha256=(?P<digest>[0-9a-fA-F]{64})")
_MAX_ARCHIVE_BYTES = 4_000_000_000
_MAX_MEMBERS = 100
_CHUNK = 1 << 20
_TIMEOUT = (10.0, 60.0)  # Seconds for the connection, and between two chunks.


def cache_folder() -> Path:
    """Where downloaded presets are kept: `$KERAS_HOME/keras_rpe`, by default `~/.keras/keras_rpe`.

    Example:
        >>> from keras_rpe.models.presets.preset_archive import cache_folder
        >>> cache_folder().name
        'keras_rpe'
    """
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "keras_rpe"


def fetch_archive(handle: str) -> Path:
    """Download and unpack a preset, once for each checksum.

    Args:
        handle: `https://…/NAME.zip#sha256=…`, the checksum that of the zip file.

    Returns:
        The folder in the cache.

    Raises:
        PresetError: If the address has no checksum, cannot be reached, or its content has another
            checksum or is no zip file of a preset. Nothing is left in the cache then.
    """
    match = _HANDLE.fullmatch(handle)
    if match is None:
        raise PresetError(
            "`preset` must end in #sha256= and the 64 hexadecimal digits of the zip file's "
            f"SHA-256 where it is an https address. Received: preset={handle!r}"
        )
    digest = match["digest"].lower()
    target = cache_folder() / digest
    if (target / CONFIG).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as temporary:
        archive = Path(temporary) / "preset.zip"
        received = _download(match["url"], archive)
        if received != digest:
            raise PresetError(
                f"The preset {match['url']} is refused: its SHA-256 must be {digest}. "
                f"Received: {received}"
            )
        unpacked = Path(temporary) / "preset"
        unpack_preset(archive, unpacked)
        # Another process may have been faster, with the same files.
        with contextlib.suppress(FileExistsError, OSError):
            unpacked.rename(target)
    if not (target / CONFIG).is_file():
        raise PresetError(f"The preset {match['url']} cannot be put into {target}.")
    return target


def _download(url: str, path: Path) -> str:
    """Write what is at an address into a file and give its SHA-256."""
    digest = hashlib.sha256()
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT) as answer, path.open("wb") as file:
            if any(not r.url.startswith("https://") for r in (*answer.history, answer)):
                raise PresetError(f"The preset {url} is refused: it leads to an insecure address.")
            answer.raise_for_status()
            for chunk in _limited(answer, url):
                digest.update(chunk)
                file.write(chunk)
    except requests.RequestException as error:
        raise PresetError(f"The preset {url} cannot be downloaded: {first_line(error)}") from error
    return digest.hexdigest()


def _limited(answer: requests.Response, url: str) -> Iterator[bytes]:
    received = 0
    for chunk in answer.iter_content(_CHUNK):
        received += len(chunk)
        if received > _MAX_ARCHIVE_BYTES:
            raise PresetError(
                f"The preset {url} is refused: it has more than {_MAX_ARCHIVE_BYTES:,} bytes."
            )
        yield chunk


def unpack_preset(archive: Path, target: Path) -> None:
    """Unpack the files of a preset from a zip file, and nothing else.

    Args:
        archive: The zip file: the files at its top, or in one folder.
        target: A new folder.

    Raises:
        PresetError: If it is no zip file of a preset, damaged, or grows beyond reason; the folder
            is not made then.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = _members(file, archive)
            target.mkdir(parents=True)
            for name, info in members.items():
                copy_member(file, info, target / name, f"The archive {archive.name}")
    except PresetError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    except Exception as error:
        # Damaged zip files raise BadZipFile, zlib.error, NotImplementedError, EOFError and more.
        shutil.rmtree(target, ignore_errors=True)
        raise PresetError(f"The archive {archive.name} is damaged: {first_line(error)}") from error


def _members(file: zipfile.ZipFile, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of the preset by their names; all else in the archive is refused."""
    infos = [info for info in file.infolist() if not info.is_dir()]
    if len(infos) > _MAX_MEMBERS:
        raise PresetError(f"The archive {archive.name} is refused: it holds {len(infos)} files.")
    members: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for info in infos:
        path = PurePosixPath(info.filename)
        is_link = (info.external_attr >> 28) == 0o12
        unsafe = path.is_absolute() or ".." in path.parts or "\\" in info.filename or is_link
        if unsafe or len(path.parts) > 2 or path.name not in FILES or path.name in members:
            raise PresetError(
                f"The archive {archive.name} must hold {', '.join(FILES)}, at its top or in one "
                f"folder. Received: {info.filename[:200]!r}"
            )
        members[path.name] = info
        folders.add(path.parent)
    if CONFIG not in members or len(folders) != 1:
        raise PresetError(f"The archive {archive.name} must hold a {CONFIG}, in one folder.")
    return members
