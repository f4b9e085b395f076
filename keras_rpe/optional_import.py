"""Packages that only some users need."""

from __future__ import annotations

import importlib
from types import ModuleType


def optional_import(module: str, extra: str) -> ModuleType:
    """Import a module of a package that an extra installs.

    Args:
        module: Name of the module.
        extra: Name of the extra of keras-rpe.

    Returns:
        The module.

    Raises:
        ImportError: If it is missing; the message has the command that installs it.

    Example:
        >>> from keras_rpe.optional_import import optional_import
        >>> optional_import("no_such_package", "onnx")
        Traceback (most recent call last):
        ...
        ImportError: no_such_package is needed for this: pip install "keras-rpe[onnx]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f'{package} is needed for this: pip install "keras-rpe[{extra}]"'
        ) from error
