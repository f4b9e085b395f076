"""The command `keras-rpe`."""

from keras_rpe_cli.app import main

__all__ = ["main"]
