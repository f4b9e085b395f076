"""Recurrent pixel embedding for instance grouping: pixels in, instances out, in one graph."""

from keras_rpe import layers, losses, models, ops
from keras_rpe.version import __version__

__all__ = ["__version__", "layers", "losses", "metrics", "models", "ops"]
