"""TensorFlow, imported late and without its notes."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

from keras_rpe.held_back_stderr import held_back_stderr


def import_tensorflow() -> None:
    """Import TensorFlow and Keras without a line on stderr, unless that fails.

    TensorFlow writes some notes before its level of logging has an effect, straight to the file
    descriptor, so that is turned away during the import.

    Raises:
        ImportError: If TensorFlow or Keras is missing or broken; what they wrote is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with nullcontext() if "tensorflow" in sys.modules else held_back_stderr():
        import absl.logging
        import keras  # noqa: F401
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")
    absl.logging.set_verbosity(absl.logging.ERROR)
