"""Models from configurations of unknown origin: checked before anything is made or allocated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_rpe.models.presets.preset_error import PresetError

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
