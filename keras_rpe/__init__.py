"""Recurrent pixel embedding for instance grouping: pixels in, instances out, in one graph."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

# Keras loads a saved model only where its classes have been imported, so these are imported at
# once, and Keras and TensorFlow with them. The command `keras-rpe`, whose help must not wait for
# that, is a package of its own.
from keras_rpe import layers, losses, metrics, models, ops
from keras_rpe.models.presets import list_presets
from keras_rpe.version import __version__

if TYPE_CHECKING:
    from keras_rpe import callbacks, checkpoints, data, export, margins, visualization

__all__ = [
    "__version__",
    "callbacks",
    "checkpoints",
    "data",
    "export",
    "layers",
    "list_presets",
    "losses",
    "margins",
    "metrics",
    "models",
    "ops",
    "visualization",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
