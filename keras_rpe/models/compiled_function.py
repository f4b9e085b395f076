"""A function of images, compiled once for all sizes where the backend has such a thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

Tensor = Any


def compiled_for_images(
    function: Callable[[Tensor], dict[str, Tensor]],
) -> Callable[[Tensor], dict[str, Tensor]]:
    """Compile a function of images `(batch, H, W, 3)`, float32, with one trace for all sizes.

    Args:
        function: The function.

    Returns:
        A `tf.function` on TensorFlow; the function itself on other backends.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.compiled_function import compiled_for_images
        >>> double = compiled_for_images(lambda x: {"twice": x * 2})
        >>> float(double(np.ones((1, 1, 1, 3), "float32"))["twice"][0, 0, 0, 0])
        2.0
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    signature = tf.TensorSpec((None, None, None, 3), "float32")
    return tf.function(function, input_signature=[signature])
