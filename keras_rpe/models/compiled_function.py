"""A function of images or maps, compiled once for all sizes where the backend has such a thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

Tensor = Any


def compiled_function(
    function: Callable[..., dict[str, Tensor]], shapes: Sequence[tuple[int | None, ...]]
) -> Callable[..., dict[str, Tensor]]:
    """Compile a function of float32 tensors, with one trace for all sizes.

    Args:
        function: The function.
        shapes: The shape of each argument, `None` where it varies.

    Returns:
        A `tf.function` on TensorFlow; the function itself on other backends.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.compiled_function import compiled_function
        >>> double = compiled_function(lambda x: {"twice": x * 2}, [(None, None)])
        >>> float(double(np.ones((1, 1), "float32"))["twice"][0, 0])
        2.0
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    signature = [tf.TensorSpec(shape, "float32") for shape in shapes]
    # Loops are ops of the graph already: there is no Python control flow to convert.
    return tf.function(function, input_signature=signature, autograph=False)
