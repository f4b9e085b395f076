"""Find, load, save and share models as presets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_rpe.models.presets.card import figure_text, is_generated, model_card
from keras_rpe.models.presets.files import (
    CARD,
    CONFIG,
    FILES,
    METADATA,
    WEIGHTS,
    PresetError,
    build_model,
    check_size,
    first_line,
    load_weights,
    read_json,
    sha256,
    unpack,
)
from keras_rpe.optional_import import optional_import
from keras_rpe.version import __version__

# Where an installed package has the presets, and where a checkout has them.
_FOLDERS = (
    Path(__file__).parents[2] / "saved_models",
    Path(__file__).parents[3] / "saved_models",
)
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUGGING_FACE = re.compile(rf"hf://({_NAME}/{_NAME})(?:@({_NAME}))?")
_KAGGLE = re.compile(rf"kaggle://({_NAME}/{_NAME}/{_NAME}/{_NAME}(?:/\d{{1,6}})?)")
_ARCHIVE = re.compile(r"(https://[^#\s]+)#sha256=([0-9a-fA-F]{64})")
_MAX_ARCHIVE_BYTES = 4_000_000_000
_TIMEOUT = (10.0, 60.0)  # Seconds for the connection, and between two chunks.


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
            `hf://USER/REPO` (or `…@REVISION`), `kaggle://USER/MODEL/FRAMEWORK/VARIATION` (or
            `…/VERSION`), `https://…/NAME.zip#sha256=…`.

    Returns:
        The folder.

    Raises:
        PresetError: If there is no such preset, or it cannot be downloaded; the message says what
            is accepted.
        ImportError: If the handle needs an extra that is not installed.
    """
    handle, names = str(preset), preset_names()
    if match := _HUGGING_FACE.fullmatch(handle):
        hub: Any = optional_import("huggingface_hub", "hub")
        wanted = {"revision": match[2], "allow_patterns": list(FILES)}
        return _downloaded(handle, partial(hub.snapshot_download, match[1], **wanted))
    if match := _KAGGLE.fullmatch(handle):
        kagglehub: Any = optional_import("kagglehub", "hub")
        return _downloaded(handle, partial(kagglehub.model_download, match[1]))
    if match := _ARCHIVE.fullmatch(handle):
        return _fetch_archive(match[1], match[2].lower())
    if "://" not in handle:
        # A folder here comes before a bundled preset of the same name.
        bundled = [parent / handle for parent in _FOLDERS] if handle in names else []
        for folder in (Path(preset), *bundled):
            if (folder / CONFIG).is_file():
                return folder
    raise PresetError(
        f"`preset` must be one of {', '.join(map(repr, names)) or 'none bundled'}, a folder with a "
        f"{CONFIG}, hf://USER/REPO, kaggle://USER/MODEL/FRAMEWORK/VARIATION, or "
        f"https://….zip#sha256= and the 64 hexadecimal digits of its SHA-256. "
        f"Received: preset={handle!r}"
    )


def _downloaded(handle: str, download: Callable[[], str]) -> Path:
    try:
        folder = Path(download())
    except Exception as error:
        # The hubs raise errors of many kinds: no network, no access, no such repository.
        raise PresetError(
            f"The preset {handle} cannot be downloaded: {first_line(error)}"
        ) from error
    if not (folder / CONFIG).is_file():
        raise PresetError(f"The preset {handle} has no {CONFIG}.")
    return folder


def cache_folder() -> Path:
    """Where downloads are kept: `$KERAS_HOME/keras_rpe`, by default `~/.keras/keras_rpe`."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "keras_rpe"


def _fetch_archive(url: str, digest: str) -> Path:
    """Download and unpack a zip file, once for each checksum; after an error nothing is left."""
    target = cache_folder() / digest
    if (target / CONFIG).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as temporary:
        archive, unpacked = Path(temporary) / "preset.zip", Path(temporary) / "preset"
        received = _download(url, archive)
        if received != digest:
            raise PresetError(
                f"The preset {url} is refused: its SHA-256 must be {digest}. Received: {received}"
            )
        unpacked.mkdir()
        unpack(archive, unpacked, f"The archive {url}", FILES)
        # Another process may have been faster, with the same files.
        with contextlib.suppress(OSError):
            unpacked.rename(target)
    if not (target / CONFIG).is_file():
        raise PresetError(f"The preset {url} cannot be put into {target}.")
    return target


def _download(url: str, path: Path) -> str:
    """Write what is at an address into a file and give its SHA-256."""
    import requests

    digest, received = hashlib.sha256(), 0
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT) as answer, path.open("wb") as file:
            if any(not r.url.startswith("https://") for r in (*answer.history, answer)):
                raise PresetError(f"The preset {url} is refused: it leads to an insecure address.")
            answer.raise_for_status()
            for chunk in answer.iter_content(1 << 20):
                received += len(chunk)
                if received > _MAX_ARCHIVE_BYTES:
                    raise PresetError(
                        f"The preset {url} is refused: it has more than {_MAX_ARCHIVE_BYTES:,} "
                        "bytes."
                    )
                digest.update(chunk)
                file.write(chunk)
    except requests.RequestException as error:
        raise PresetError(f"The preset {url} cannot be downloaded: {first_line(error)}") from error
    return digest.hexdigest()


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
        figure: Any = known.get("figures") or ""
        if isinstance(figure, dict):
            key, value = next(iter(figure.items()))
            figure = f"{key}: {figure_text(value)}"
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
                str(figure),
            )
        )
    return rows


def load_preset(
    folder: Path, weights: bool = True, trusted_packages: Sequence[str] = ()
) -> keras.Model:
    """Make the model of a preset.

    Only classes of keras_rpe, Keras and the trusted packages are made, and no code of the preset
    is run. A file that differs from its checksum is refused, and weights that do not fit are
    refused before memory is allocated.

    Args:
        folder: Folder of the preset.
        weights: Whether to load the weights, or leave them random.
        trusted_packages: Further packages whose classes may be made, such as "keras_hub".

    Returns:
        The model, not compiled.

    Raises:
        PresetError: If a file is missing, damaged or refused, or not of such a model.
    """
    _check_files(folder, (CONFIG, WEIGHTS) if weights else (CONFIG,))
    config, name = read_json(folder / CONFIG), f"The preset file {folder / CONFIG}"
    if not weights:
        return build_model(config, name, check_size, trusted_packages)
    path = folder / WEIGHTS
    return load_weights(config, name, path, f"The weights in {path}", trusted_packages)


def _check_files(folder: Path, names: Sequence[str]) -> None:
    checksums = read_json(folder / METADATA).get("sha256")
    for name in names:
        expected = checksums.get(name) if isinstance(checksums, dict) else None
        path = folder / name
        if not path.is_file() or expected != sha256(path):
            raise PresetError(
                f"The preset file {path} is missing or damaged: its SHA-256 is not the one in "
                f"{METADATA}."
            )


def load_keras_file(
    path: str | os.PathLike[str], trusted_packages: Sequence[str] = ()
) -> keras.Model:
    """Load a keras_rpe model that `model.save` wrote, checked like a preset before it is made.

    Use `keras.saving.load_model` for files of your own: it also restores how a model was compiled,
    and the state of its optimizer.

    Args:
        path: A `.keras` file.
        trusted_packages: Packages other than keras and keras_rpe whose classes may be made, such
            as "keras_hub".

    Returns:
        The model, not compiled.

    Raises:
        PresetError: If it is not such a file, is damaged, names other classes or ones that can run
            code, or its weights do not fit.

    Example:
        >>> import tempfile
        >>> from keras_rpe.models import InstanceSegmenter, load_keras_file
        >>> path = tempfile.mkdtemp() + "/model.keras"
        >>> InstanceSegmenter("unet_small", embedding_dim=8).save(path)
        >>> load_keras_file(path).embedding_dim
        8
    """
    name = f"The model {path}"
    with tempfile.TemporaryDirectory(prefix="keras_rpe-") as temporary:
        folder = Path(temporary)
        unpack(Path(path), folder, name, (CONFIG, WEIGHTS), strict=False)
        return load_weights(
            read_json(folder / CONFIG, name),
            name,
            folder / WEIGHTS,
            f"The weights in {path}",
            trusted_packages,
        )


def save_preset(
    model: keras.Model, folder: str | os.PathLike[str], notes: dict[str, Any] | None = None
) -> None:
    """Write the configuration, the weights and the card of a model into a folder.

    The files are written under temporary names and put in place at the end, the one with the
    checksums last, so a preset is whole or refused by `load_preset`.

    Args:
        model: The model.
        folder: The folder, made if it is missing; files of other names in it are kept, and so is a
            card that someone wrote.
        notes: Further entries of the metadata, such as figures of an evaluation; those that
            `model_card` knows come into the card.

    Raises:
        TypeError: If the notes cannot be written as JSON.
        OSError: If the folder cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
    try:
        config = keras.saving.serialize_keras_object(model)
        for part in ("compile_config", "build_config"):
            config.pop(part, None)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        # Keras writes the state of the optimizer of a compiled model beside its weights.
        plain = keras.saving.deserialize_keras_object(config)
        plain.set_weights(model.get_weights())
        plain.save_weights(temporary / WEIGHTS)
        metadata = {
            **(notes or {}),
            "keras_rpe_version": __version__,
            "keras_version": keras.__version__,
            "parameter_count": model.count_params(),
            "weights_bytes": (temporary / WEIGHTS).stat().st_size,
            "date_saved": datetime.now(UTC).strftime("%Y-%m-%d"),
        }
        names = [WEIGHTS, CONFIG]
        if not (target / CARD).is_file() or is_generated(target / CARD):
            card = model_card(target.resolve().name, metadata, config, os.fspath(folder))
            (temporary / CARD).write_text(card, encoding="utf-8")
            names.append(CARD)
        metadata["sha256"] = {name: sha256(temporary / name) for name in names}
        (temporary / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")
        for name in (*names, METADATA):
            (temporary / name).replace(target / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def upload_to_hub(folder: str | os.PathLike[str], handle: str, private: bool = False) -> None:
    """Upload the preset in a folder, so that `from_preset(handle)` loads it.

    Log in first with the command of the hub, `hf auth login`, or a Kaggle API token. Only the
    files of the preset are sent, and only if they have their checksums.

    Args:
        folder: Folder that `save_to_preset` wrote.
        handle: `hf://USER/REPO`, made if there is none, or
            `kaggle://USER/MODEL/FRAMEWORK/VARIATION`.
        private: Whether a new repository on Hugging Face is private.

    Raises:
        PresetError: If the preset is damaged, the handle another, or the upload fails.
        ImportError: If the package of the hub is not installed.

    Example:
        >>> from keras_rpe.models import upload_to_hub
        >>> upload_to_hub("runs/mine/preset", "ftp://somewhere")
        Traceback (most recent call last):
        ...
        keras_rpe.models.presets.files.PresetError: `handle` must be hf://USER/REPO or ...
    """
    repo, model = _HUGGING_FACE.fullmatch(handle), _KAGGLE.fullmatch(handle)
    if (repo is None or repo[2] is not None) and model is None:
        raise PresetError(
            "`handle` must be hf://USER/REPO or kaggle://USER/MODEL/FRAMEWORK/VARIATION. "
            f"Received: handle={handle!r}"
        )
    preset = Path(folder)
    _check_files(preset, (CONFIG, WEIGHTS))
    package = "huggingface_hub" if repo else "kagglehub"
    hub: Any = optional_import(package, "hub")
    try:
        if repo:
            api = hub.HfApi()
            api.create_repo(repo[1], private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repo[1],
                folder_path=str(preset),
                allow_patterns=list(FILES),
                commit_message="Upload a preset of keras_rpe",
            )
        elif model:
            hub.model_upload(
                model[1],
                str(preset),
                license_name=read_json(preset / METADATA).get("licence"),
                ignore_patterns=[path.name for path in preset.iterdir() if path.name not in FILES],
            )
    except Exception as error:
        # The hubs raise errors of many kinds: no network, no token, no access.
        raise PresetError(f"The upload to {handle} has failed: {first_line(error)}") from error
