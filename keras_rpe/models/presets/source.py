"""Where presets come from: bundled ones, folders, archives and hubs."""

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
from typing import Any, NamedTuple

import requests

from keras_rpe.models.presets.card import figure_text
from keras_rpe.models.presets.files import (
    CONFIG,
    FILES,
    METADATA,
    PresetError,
    copy_member,
    first_line,
    read_json,
)
from keras_rpe.optional_import import optional_import

_HANDLE = re.compile(r"(?P<url>https://[^#\s]+)#sha256=(?P<digest>[0-9a-fA-F]{64})")
_MAX_ARCHIVE_BYTES = 4_000_000_000
_MAX_MEMBERS = 100
_CHUNK = 1 << 20
_TIMEOUT = (10.0, 60.0)  # Seconds for the connection, and between two chunks.


def cache_folder() -> Path:
    """Where downloaded presets are kept: `$KERAS_HOME/keras_rpe`, by default `~/.keras/keras_rpe`.

    Example:
        >>> from keras_rpe.models.presets.source import cache_folder
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


_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUGGING_FACE = re.compile(rf"hf://(?P<repo>{_NAME}/{_NAME})(@(?P<revision>{_NAME}))?")
_KAGGLE = re.compile(rf"kaggle://(?P<handle>{_NAME}/{_NAME}/{_NAME}/{_NAME}(/\d{{1,6}})?)")


def is_remote(preset: str | os.PathLike[str]) -> bool:
    """Whether a preset is an address rather than a name or a folder.

    Example:
        >>> from keras_rpe.models.presets.source import is_remote
        >>> is_remote("hf://user/repo"), is_remote("nuclei")
        (True, False)
    """
    return "://" in str(preset)


def hugging_face_repo(handle: str) -> tuple[str, str | None] | None:
    """Repository and revision of `hf://USER/REPO[@REVISION]`, or `None` for another handle."""
    match = _HUGGING_FACE.fullmatch(handle)
    return (match["repo"], match["revision"]) if match else None


def kaggle_handle(handle: str) -> str | None:
    """What follows `kaggle://` in such a handle, or `None` for another one."""
    match = _KAGGLE.fullmatch(handle)
    return match["handle"] if match else None


def fetch_preset(handle: str) -> Path:
    """Download a preset into the cache of its source.

    Args:
        handle: `hf://USER/REPO` (or `…@REVISION`), `kaggle://USER/MODEL/FRAMEWORK/VARIATION` (or
            `…/VERSION`), or `https://…/NAME.zip#sha256=…`.

    Returns:
        A folder with the files of the preset.

    Raises:
        PresetError: If the handle is none of these, or the preset cannot be downloaded.
        ImportError: If the package of the hub is not installed.
    """
    if repo := hugging_face_repo(handle):
        hub: Any = optional_import("huggingface_hub", "hub")
        folder = _fetch(
            handle,
            lambda: hub.snapshot_download(repo[0], revision=repo[1], allow_patterns=list(FILES)),
        )
    elif name := kaggle_handle(handle):
        kagglehub: Any = optional_import("kagglehub", "hub")
        folder = _fetch(handle, lambda: kagglehub.model_download(name))
    elif handle.startswith("https://"):
        folder = fetch_archive(handle)
    else:
        raise PresetError(
            "`preset` must be hf://USER/REPO, kaggle://USER/MODEL/FRAMEWORK/VARIATION or "
            f"https://….zip#sha256=… where it is an address. Received: preset={handle!r}"
        )
    if not (folder / CONFIG).is_file():
        raise PresetError(f"The preset {handle} has no {CONFIG}.")
    return folder


def _fetch(handle: str, download: Any) -> Path:
    try:
        return Path(download())
    except Exception as error:
        # The hubs raise errors of many kinds: no network, no access, no such repository.
        raise PresetError(
            f"The preset {handle} cannot be downloaded: {first_line(error)}"
        ) from error


# Where an installed package has the presets, and where a checkout has them.
_FOLDERS = (
    Path(__file__).parents[2] / "saved_models",
    Path(__file__).parents[3] / "saved_models",
)


def preset_names() -> list[str]:
    """Names of the presets that come with the package.

    Example:
        >>> from keras_rpe.models import preset_names
        >>> "nuclei" in preset_names()
        True
    """
    found = {path.parent.name for folder in _FOLDERS for path in folder.glob(f"*/{CONFIG}")}
    return sorted(found)


def preset_folder(preset: str | os.PathLike[str]) -> Path:
    """Find the folder of a preset, downloaded if it is elsewhere.

    Args:
        preset: The name of a bundled preset, a folder that `save_to_preset` wrote, or one of
            `hf://USER/REPO`, `kaggle://USER/MODEL/FRAMEWORK/VARIATION`,
            `https://…/NAME.zip#sha256=…`.

    Returns:
        The folder.

    Raises:
        PresetError: If there is no such preset, or it cannot be had; the message says what is
            accepted.
        ImportError: If the handle needs an extra that is not installed.
    """
    if is_remote(preset):
        return fetch_preset(str(preset))
    names = preset_names()
    if str(preset) in names:
        candidates = [Path(preset), *(parent / preset for parent in _FOLDERS)]
    else:
        candidates = [Path(preset)]
    for folder in candidates:
        # A folder here comes before a bundled preset of the same name.
        if (folder / CONFIG).is_file():
            return folder
    bundled = ", ".join(repr(name) for name in names) or "none bundled"
    raise PresetError(
        f"`preset` must be one of {bundled}, a folder with a {CONFIG}, hf://USER/REPO, "
        "kaggle://USER/MODEL/FRAMEWORK/VARIATION, or https://….zip#sha256=…. "
        f"Received: preset={str(preset)!r}"
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read what is known of a preset: versions, parameters, checksums.

    Args:
        folder: Folder of the preset.

    Returns:
        The content of its `metadata.json`.

    Raises:
        PresetError: If it cannot be read.
    """
    return read_json(folder / METADATA)


class PresetRow(NamedTuple):
    """What is known of a bundled preset, a row of `list_presets`.

    Attributes:
        name: What `from_preset` takes.
        task: What its model does.
        backbone: Its network.
        parameters: How many numbers its weights are.
        megabytes: Size of its folder, in 10⁶ bytes.
        trained_on: The images that it was trained on.
        licence: That of the weights.
        figure: One figure of how well it does.
    """

    name: str
    task: str
    backbone: str
    parameters: int
    megabytes: float
    trained_on: str
    licence: str
    figure: str


def list_presets() -> list[PresetRow]:
    """List the presets that come with the package.

    Returns:
        A row for each, by name; what a preset does not state is an empty text.

    Example:
        >>> import keras_rpe
        >>> [row.task for row in keras_rpe.list_presets() if row.name == "nuclei"]
        ['instance segmentation']
    """
    rows = []
    for name in preset_names():
        folder = preset_folder(name)
        known, config = read_json(folder / METADATA), read_json(folder / CONFIG)
        figures = known.get("figures") or {}
        if isinstance(figures, dict):
            first = next(iter(figures.items()), None)
            figures = f"{first[0]}: {figure_text(first[1])}" if first else ""
        backbone = known.get("backbone") or config.get("config", {}).get("backbone", "")
        if isinstance(backbone, dict):
            backbone = backbone.get("config", {}).get("name", "")
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        rows.append(
            PresetRow(
                name,
                str(known.get("task") or config.get("class_name", "")),
                str(backbone),
                int(known.get("parameter_count") or 0),
                round(size / 1e6, 1),
                str(known.get("trained_on") or ""),
                str(known.get("licence") or ""),
                str(figures),
            )
        )
    return rows
