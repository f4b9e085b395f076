"""Recurrent pixel embedding for instance grouping: pixels in, instances out, in one graph."""

import sys
from pathlib import Path

from keras_rpe.preset_table import list_presets
from keras_rpe.version import __version__

# All classes are imported at once, so that Keras can load a model that holds them. Only the
# command line imports what each command needs: its help should not wait for TensorFlow.
if Path(sys.argv[0] if sys.argv else "").stem != "keras-rpe":
    from keras_rpe import (
        callbacks,
        checkpoints,
        data,
        export,
        layers,
        losses,
        margins,
        metrics,
        models,
        ops,
        visualization,
    )

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
