"""The files of a preset, checked before they are used: JSON, weights, archives."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import keras
import numpy as np

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
CARD = "README.md"
FILES = (CONFIG, METADATA, WEIGHTS, CARD)

# The largest configuration of a known network has half a megabyte.
_MAX_JSON_BYTES = 8_000_000
_MAX_WEIGHT_BYTES = 4_000_000_000
_MAX_OBJECTS = 200_000
_MAX_DEPTH = 100
_MAX_MEMBERS = 100
# Weights hardly compress; the JSON beside them does, and is small.
_MAX_RATIO = 20
_CHUNK = 1 << 20

Shape = tuple[int, ...]


class PresetError(ValueError):
    """A preset or model file is unknown, out of reach, damaged, refused as unsafe, or unfitting."""


def first_line(error: BaseException) -> str:
    r"""Give the first line of an error's message, as Keras adds pages to some."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def read_json(path: Path, name: str = "") -> dict[str, Any]:
    """Read a small JSON object; an error calls the file `name`."""
    name = name or f"The preset file {path}"
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise PresetError(f"{name} cannot be read: {error.strerror}.") from error
    if len(content) > _MAX_JSON_BYTES:
        raise PresetError(f"{name} must be smaller than {_MAX_JSON_BYTES:,} bytes.")
    try:
        result = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{name} must be JSON. Received: {error}") from error
    if not isinstance(result, dict):
        raise PresetError(f"{name} must hold a JSON object. Received: a {type(result).__name__}")
    return result


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# How Keras writes values that are not objects of a class.
_VALUES = {
    "__keras_tensor__",
    "__tuple__",
    "__slice__",
    "__ellipsis__",
    "__tensor__",
    "__numpy__",
    "__bytes__",
}
# Classes of Keras whose configuration holds code, or names files to read.
_UNSAFE = {
    "__lambda__",
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "StringLookup",
    "IntegerLookup",
    "TextVectorization",
}


def check_config(config: Any, name: str, trusted_packages: Sequence[str] = ()) -> None:
    """Check that a configuration describes a keras_rpe model made of known classes."""
    registered = config.get("registered_name") if isinstance(config, dict) else None
    if not str(registered).startswith("keras_rpe>"):
        raise PresetError(
            f"{name} must describe a keras_rpe model. Received: registered_name={registered!r}"
        )
    waiting, seen = [(config, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > _MAX_OBJECTS or depth > _MAX_DEPTH:
            raise PresetError(
                f"{name} must have at most {_MAX_OBJECTS:,} entries, nested {_MAX_DEPTH} deep."
            )
        if isinstance(value, dict):
            if "class_name" in value:
                _check_class(value, name, trusted_packages)
            waiting += [(child, depth + 1) for child in value.values()]
        elif isinstance(value, list):
            waiting += [(child, depth + 1) for child in value]


def _check_class(value: dict[str, Any], name: str, trusted_packages: Sequence[str]) -> None:
    class_name, module = value["class_name"], value.get("module")
    registered = value.get("registered_name")
    if class_name in _UNSAFE:
        raise PresetError(f"{name} is refused: {class_name} can run code or read other files.")
    if class_name in _VALUES and not module:
        return
    package = str(module or "").partition(".")[0]
    if registered and ">" in str(registered):
        package = str(registered).partition(">")[0]
    if package not in ("keras", "builtins", "keras_rpe", *trusted_packages):
        raise PresetError(
            f"{name} must name classes of keras, keras_rpe and `trusted_packages` only. Received: "
            f"class_name={class_name!r}, module={module!r}, registered_name={registered!r}"
        )


def build_model(
    config: dict[str, Any],
    name: str,
    check_variables: Callable[[list[Any]], None],
    trusted_packages: Sequence[str] = (),
) -> keras.Model:
    """Make the model of a configuration, with random weights and not compiled.

    `check_variables` gets its variables before any is allocated, so that it can refuse them.
    """
    check_config(config, name, trusted_packages)
    policy = keras.config.dtype_policy()
    try:
        # Variables have shapes but no values in here: a configuration cannot ask for memory.
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(_uncompiled(config), safe_mode=True)
            if not isinstance(model, keras.Model):
                raise PresetError(f"{name} must describe a model. Received: {type(model).__name__}")
            check_variables(model.variables)
    except Exception as error:
        # Or the variables of the refused model would be allocated at the next occasion.
        keras.backend.clear_session(free_memory=False)
        keras.config.set_dtype_policy(policy)
        if isinstance(error, PresetError):
            raise
        raise PresetError(f"{name} cannot be loaded: {first_line(error)}") from error
    with keras.StatelessScope():
        pass  # Leaving it allocates them.
    return model


def _uncompiled(value: Any) -> Any:
    """The configuration without how models in it were compiled, which makes variables."""
    if isinstance(value, dict):
        return {key: _uncompiled(v) for key, v in value.items() if key != "compile_config"}
    return [_uncompiled(v) for v in value] if isinstance(value, list) else value


def check_size(variables: list[Any]) -> None:
    """Refuse a model whose random weights would fill the memory."""
    size = 4 * sum(math.prod(variable.shape) for variable in variables)
    if size > _MAX_WEIGHT_BYTES:
        raise PresetError(f"The preset is refused: its weights would take {size:,} bytes.")


def weight_shapes(path: Path, name: str) -> Counter[Shape]:
    """Count the shapes of the weights in a file, without reading them or following a link."""
    shapes: Counter[Shape] = Counter()
    seen = 0

    def visit(key: str, link: Any) -> str | None:
        """Count a weight, or end the visit with what is wrong."""
        nonlocal seen
        seen += 1
        if seen > _MAX_OBJECTS or key.count("/") > _MAX_DEPTH:
            return "too many or too deep"
        if not isinstance(link, h5py.HardLink):
            return f"{key} is a link"
        entry = file[key]
        if isinstance(entry, h5py.Group):
            return None
        if not isinstance(entry, h5py.Dataset) or entry.is_virtual or entry.external:
            return f"{key} has its data elsewhere"
        if entry.dtype.kind not in "fiub" and entry.dtype.name != "bfloat16":
            return f"{key} holds no numbers"
        if math.prod(entry.shape or ()) * entry.dtype.itemsize > _MAX_WEIGHT_BYTES:
            return f"{key} is too large"
        if not key.startswith("optimizer"):
            shapes[tuple(int(side) for side in entry.shape)] += 1
        return None

    try:
        with h5py.File(path, "r") as file:
            problem = file.visititems_links(visit)
    except Exception as error:
        # A damaged file raises whatever the HDF5 library meets: OSError, RuntimeError, KeyError …
        raise PresetError(f"{name} are damaged or of another kind: {first_line(error)}") from error
    if problem is not None:
        raise PresetError(f"{name} are refused: {problem}.")
    return shapes


def load_weights(
    config: dict[str, Any],
    config_name: str,
    path: Path,
    name: str,
    trusted_packages: Sequence[str] = (),
) -> keras.Model:
    """Make the model of a configuration with the weights of a file, which must be all it has."""
    shapes = weight_shapes(path, name)

    def check_variables(variables: list[Any]) -> None:
        left = Counter(shapes)
        for variable in variables:
            shape = tuple(variable.shape)
            if not left[shape]:
                raise PresetError(
                    f"{name} do not fit the model: its {variable.path} has the shape {shape}, and "
                    f"the file has {shapes[shape] or 'no'} weights of that shape."
                )
            left[shape] -= 1
        for shape in +left:
            raise PresetError(
                f"{name} do not fit the model: the file has {shapes[shape]} weights of the shape "
                f"{shape}, and the model fewer."
            )

    model = build_model(config, config_name, check_variables, trusted_packages)
    try:
        model.load_weights(path)
    except Exception as error:
        raise PresetError(
            f"{name} cannot be loaded into {model.name}: {first_line(error)}"
        ) from error
    for variable in model.variables:
        values = keras.ops.convert_to_numpy(variable.value)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise PresetError(f"{name} are refused: {variable.path} is not finite.")
    return model


def unpack(
    archive: Path, folder: Path, name: str, names: Sequence[str], strict: bool = True
) -> None:
    """Unpack those files of a zip archive into a folder, and nothing else."""
    try:
        with zipfile.ZipFile(archive) as file:
            infos = [info for info in file.infolist() if not info.is_dir()]
            if not strict:
                infos = [info for info in infos if info.filename in names]
            if len(infos) > _MAX_MEMBERS:
                raise PresetError(f"{name} is refused: it holds {len(infos)} files.")
            paths = [PurePosixPath(info.filename) for info in infos]
            for info, path in zip(infos, paths):
                unsafe = path.is_absolute() or ".." in path.parts or "\\" in info.filename
                is_link = (info.external_attr >> 28) == 0o12
                if unsafe or is_link or path.name not in names or len(path.parts) > 2:
                    raise PresetError(
                        f"{name} must hold {', '.join(names)}, at its top or in one folder. "
                        f"Received: {info.filename[:200]!r}"
                    )
            found = {path.name for path in paths}
            folders = {path.parent for path in paths}
            if names[0] not in found or len(found) < len(paths) or len(folders) > 1:
                raise PresetError(f"{name} must hold a {names[0]}, and its files in one folder.")
            for info, path in zip(infos, paths):
                _unpack_member(file, info, folder / path.name, name)
    except PresetError:
        raise
    except Exception as error:
        # Damaged zip files raise BadZipFile, zlib.error, NotImplementedError, EOFError and more.
        raise PresetError(f"{name} is damaged or of another kind: {first_line(error)}") from error


def _unpack_member(file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str) -> None:
    if info.file_size > max(_CHUNK, _MAX_RATIO * info.compress_size):
        raise PresetError(
            f"{name} is refused: {path.name} grows from {info.compress_size:,} to "
            f"{info.file_size:,} bytes."
        )
    # zipfile reads no more than the size that the member states.
    with file.open(info) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
