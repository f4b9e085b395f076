"""The files of a preset, checked before they are used."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np


class PresetError(ValueError):
    """A preset or model file is unknown, out of reach, damaged, refused as unsafe, or unfitting."""


CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
CARD = "README.md"
FILES = (CONFIG, METADATA, WEIGHTS, CARD)

MAX_JSON_BYTES = 8_000_000  # The largest configuration of a known network has half a megabyte.


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        PresetError: If it is missing, large, or not such a file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise PresetError(f"The preset file {path} cannot be read: {error.strerror}.") from error
    return parse_json(content, f"The preset file {path}")


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        content: The text.
        name: What an error calls it.

    Returns:
        The object.

    Raises:
        PresetError: If it is none, or large.
    """
    if len(content) > MAX_JSON_BYTES:
        raise PresetError(f"{name} must be smaller than {MAX_JSON_BYTES:,} bytes.")
    try:
        result = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{name} must be JSON. Received: {error}") from error
    if not isinstance(result, dict):
        raise PresetError(f"{name} must hold a JSON object. Received: a {type(result).__name__}")
    return result


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file as hexadecimal digits.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "empty"
        >>> _ = path.write_bytes(b"")
        >>> sha256(path)[:8]
        'e3b0c442'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_MAX_OBJECTS = 200_000
_MAX_DEPTH = 100
# How Keras writes values that are no objects of a class.
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
    """Check that a configuration describes a keras_rpe model out of known classes.

    Args:
        config: What `keras.saving.serialize_keras_object` gave.
        name: What an error calls it.
        trusted_packages: Packages other than keras and keras_rpe whose classes may be made, such
            as "keras_hub".

    Raises:
        PresetError: If it names a class of another package or one that can run code.
    """
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
    package = str(module or "").partition(".")[0]
    if class_name in _UNSAFE or class_name == "__lambda__":
        raise PresetError(f"{name} is refused: {class_name} can run code or read other files.")
    if class_name in _VALUES and not module:
        return
    if registered and ">" in str(registered):
        package = str(registered).partition(">")[0]
    if package in ("keras", "builtins", "keras_rpe", *trusted_packages):
        return
    raise PresetError(
        f"{name} must name classes of keras and keras_rpe alone, or of `trusted_packages`. "
        f"Received: class_name={class_name!r}, module={module!r}, registered_name={registered!r}"
    )


def build_model(
    config: dict[str, Any],
    name: str,
    check_shapes: Callable[[list[Any]], None] | None = None,
    trusted_packages: Sequence[str] = (),
) -> keras.Model:
    """Make the model of a configuration, with random weights.

    Args:
        config: What `keras.saving.serialize_keras_object` gave.
        name: What an error calls it.
        check_shapes: Called with the variables of the model before any is allocated, so that it
            can refuse them.
        trusted_packages: As in `check_config`.

    Returns:
        The model, not compiled.

    Raises:
        PresetError: If the configuration is refused, or no model can be made of it; what
            `check_shapes` raises.
    """
    check_config(config, name, trusted_packages)
    config = _uncompiled(config)
    policy = keras.config.dtype_policy()
    try:
        # Variables have shapes but no values in here: a configuration cannot ask for memory.
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            if not isinstance(model, keras.Model):
                raise PresetError(f"{name} must describe a model. Received: {type(model).__name__}")
            if check_shapes is not None:
                check_shapes(model.variables)
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


def first_line(error: BaseException) -> str:
    r"""Give the first line of an error's message, as Keras adds pages to some.

    Example:
        >>> first_line(ValueError("what\nand a page"))
        'what'
    """
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


Shape = tuple[int, ...]

_WEIGHTS_FILE_MAX_DEPTH = 50
_MAX_DATASET_BYTES = 4_000_000_000


def weight_shapes(path: Path) -> Counter[Shape]:
    """Count the shapes of the weights in a file without reading them.

    Args:
        path: A `.weights.h5` file.

    Returns:
        How often each shape occurs, the state of an optimizer left out.

    Raises:
        PresetError: If it is no such file, or has links, external or virtual data, or data that
            are no numbers.
    """
    try:
        with h5py.File(path, "r") as file:
            return Counter(shape for _, shape in _datasets(file, path))
    except PresetError:
        raise
    except Exception as error:
        # A damaged file raises whatever the HDF5 library meets: OSError, RuntimeError, KeyError …
        raise PresetError(
            f"The weights in {path} are damaged or of another kind: {first_line(error)}"
        ) from error


def _datasets(file: h5py.File, path: Path) -> Iterator[tuple[str, Shape]]:
    waiting = [("", 0)]
    seen = 0
    while waiting:
        name, depth = waiting.pop()
        group = file[name] if name else file
        for key in group:
            seen += 1
            if seen > _MAX_OBJECTS or depth > _WEIGHTS_FILE_MAX_DEPTH:
                raise PresetError(f"The weights in {path} are refused: too many or too deep.")
            child = f"{name}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise PresetError(f"The weights in {path} are refused: {child} is a link.")
            entry = group[key]
            if isinstance(entry, h5py.Group):
                waiting.append((child, depth + 1))
                continue
            _check_dataset(entry, child, path)
            if not child.startswith("/optimizer"):
                yield child, tuple(int(side) for side in entry.shape)


def _check_dataset(entry: Any, name: str, path: Path) -> None:
    if not isinstance(entry, h5py.Dataset) or entry.is_virtual or entry.external:
        raise PresetError(f"The weights in {path} are refused: {name} has its data elsewhere.")
    if entry.dtype.kind not in "fiub" and entry.dtype.name != "bfloat16":
        raise PresetError(f"The weights in {path} are refused: {name} holds no numbers.")
    if math.prod(entry.shape or ()) * entry.dtype.itemsize > _MAX_DATASET_BYTES:
        raise PresetError(f"The weights in {path} are refused: {name} is too large.")


def check_shapes(shapes: Counter[Shape], variables: list[Any], path: Path) -> None:
    """Check that a file has a weight of the shape of each variable, and no others.

    Args:
        shapes: Of the file, as `weight_shapes` gives them.
        variables: Of the model; they need no values yet.
        path: The file.

    Raises:
        PresetError: If it does not; the message names a variable.
    """
    left = Counter(shapes)
    for variable in variables:
        shape = tuple(variable.shape)
        if not left[shape]:
            raise PresetError(
                f"The weights in {path} do not fit the model: its {variable.path} has the shape "
                f"{shape}, and the file has {shapes[shape] or 'no'} weights of that shape."
            )
        left[shape] -= 1
    if spare := +left:
        shape = next(iter(spare))
        raise PresetError(
            f"The weights in {path} do not fit the model: the file has {shapes[shape]} weights of "
            f"the shape {shape}, and the model fewer."
        )


def load_weights(model: keras.Model, path: Path) -> None:
    """Load weights whose shapes `check_shapes` has accepted.

    Args:
        model: The model.
        path: A `.weights.h5` file.

    Raises:
        PresetError: If they cannot be read, or are not finite.
    """
    try:
        model.load_weights(path)
    except Exception as error:
        raise PresetError(
            f"The weights in {path} cannot be loaded into {model.name}: {first_line(error)}"
        ) from error
    for variable in model.variables:
        values = keras.ops.convert_to_numpy(variable.value)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise PresetError(f"The weights in {path} are refused: {variable.path} is not finite.")


_MAX_RATIO = 20  # Weights hardly compress; the JSON beside them does, and is small.
_CHUNK = 1 << 20


def copy_member(file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str) -> None:
    """Unpack one member of a zip file into a file of the caller's choice.

    Args:
        file: The open zip file.
        info: The member; its name is not used.
        path: The file to write.
        name: What an error calls the zip file.

    Raises:
        PresetError: If it grows beyond reason, or is larger than it says.
        Exception: What zipfile raises for damaged data.
    """
    if info.file_size > max(_CHUNK, _MAX_RATIO * info.compress_size):
        raise PresetError(
            f"{name} is refused: {path.name} grows from {info.compress_size:,} to "
            f"{info.file_size:,} bytes."
        )
    left = info.file_size
    with file.open(info) as source, path.open("wb") as target:
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise PresetError(f"{name} is refused: {path.name} is larger than it says.")
            target.write(chunk)
