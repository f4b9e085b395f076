"""Padding to the stride of a network."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rpe.ops import missing_to_multiple

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class PadToMultiple(keras.layers.Layer):
    """Pad maps with zeros, below and to the right, until a number divides their sides.

    Args:
        multiple: The number, at least 1: the largest stride of a network.
        **kwargs: Of `keras.layers.Layer`.

    Input shape:
        `(batch, H, W, C)`.

    Output shape:
        `(batch, H', W', C)`, H' and W' the next multiples.

    Raises:
        ValueError: If `multiple` is below 1.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import PadToMultiple
        >>> tuple(PadToMultiple(16)(np.zeros((1, 30, 33, 3), "float32")).shape)
        (1, 32, 48, 3)
    """

    def __init__(self, multiple: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if multiple < 1:
            raise ValueError(f"`multiple` must be at least 1. Received: multiple={multiple}")
        self.multiple = multiple

    def call(self, inputs: Tensor) -> Tensor:
        """Return the padded maps."""
        batch, height, width = ops.shape(inputs)[:3]
        bottom = missing_to_multiple(height, self.multiple)
        right = missing_to_multiple(width, self.multiple)
        x = ops.pad(inputs, [[0, 0], [0, bottom], [0, right], [0, 0]])
        # Padding by sizes that are known late makes a mobile converter forget the channels.
        return ops.reshape(x, (batch, height + bottom, width + right, inputs.shape[-1] or -1))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the padded maps."""
        batch, height, width, channels = input_shape

        def up(n: int | None) -> int | None:
            return None if n is None else n + missing_to_multiple(n, self.multiple)

        return (batch, up(height), up(width), channels)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {**super().get_config(), "multiple": self.multiple}
