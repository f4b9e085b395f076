"""The command `keras-rpe`."""

from keras_rpe.cli.app import main

__all__ = ["main"]
