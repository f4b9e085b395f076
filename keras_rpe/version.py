"""The version of keras_rpe."""

__version__ = "0.1.0"
