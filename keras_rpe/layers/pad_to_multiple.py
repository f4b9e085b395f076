"""Padding to the stride of a network."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rpe.ops import missing_to_multiple

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class PadToMultiple(keras.layers.Layer):
    """Pad maps, below and to the right, until a number divides their sides.

    Args:
        multiple: The number, at least 1: the largest stride of a network.
        mode: "zeros", or "reflect": the map is mirrored at its sides, as often as it takes, so that
            there is no edge.
        **kwargs: Of `keras.layers.Layer`.

    Input shape:
        `(batch, H, W, C)`.

    Output shape:
        `(batch, H', W', C)`, H' and W' the next multiples.

    Raises:
        ValueError: If `multiple` is below 1, or `mode` is unknown.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import PadToMultiple
        >>> tuple(PadToMultiple(16)(np.zeros((1, 30, 33, 3), "float32")).shape)
        (1, 32, 48, 3)
    """

    def __init__(self, multiple: int, mode: str = "zeros", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if multiple < 1:
            raise ValueError(f"`multiple` must be at least 1. Received: multiple={multiple}")
        if mode not in ("zeros", "reflect"):
            raise ValueError(f"`mode` must be 'zeros' or 'reflect'. Received: mode={mode!r}")
        self.multiple = multiple
        self.mode = mode

    def call(self, inputs: Tensor) -> Tensor:
        """Return the padded maps."""
        batch, height, width = ops.shape(inputs)[:3]
        bottom = missing_to_multiple(height, self.multiple)
        right = missing_to_multiple(width, self.multiple)
        if self.mode == "reflect":
            x = ops.take(inputs, _mirrored(height, height + bottom), axis=1)
            x = ops.take(x, _mirrored(width, width + right), axis=2)
        else:
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
        return {**super().get_config(), "multiple": self.multiple, "mode": self.mode}


def _mirrored(length: Tensor | int, padded: Tensor | int) -> Tensor:
    """The place in a row of `length` values from which each of `padded` values is taken."""
    along = ops.arange(padded) % (2 * length)
    return ops.minimum(along, 2 * length - 1 - along)
