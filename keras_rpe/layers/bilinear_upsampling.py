"""Bilinear upsampling as a layer."""

from __future__ import annotations

from typing import Any

import keras

from keras_rpe.ops import upsample_bilinear

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class BilinearUpsampling(keras.layers.Layer):
    """Enlarge maps by linear interpolation; see `keras_rpe.ops.upsample_bilinear`.

    Args:
        factor: By how much, in 1 … 1024.
        **kwargs: Of `keras.layers.Layer`.

    Input shape:
        `(batch, H, W, C)`, C static.

    Output shape:
        `(batch, factor · H, factor · W, C)`.

    Raises:
        ValueError: If `factor` is out of its range.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import BilinearUpsampling
        >>> tuple(BilinearUpsampling(4)(np.zeros((1, 5, 6, 2), "float32")).shape)
        (1, 20, 24, 2)
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (isinstance(factor, int) and 1 <= factor <= 1024):
            raise ValueError(
                f"`factor` must be an integer of at least 1 and at most 1024. "
                f"Received: factor={factor}"
            )
        self.factor = factor

    def call(self, inputs: Tensor) -> Tensor:
        """Return the enlarged maps."""
        return upsample_bilinear(inputs, self.factor)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the enlarged maps."""
        batch, *sides, channels = input_shape
        return (batch, *(None if n is None else n * self.factor for n in sides), channels)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {**super().get_config(), "factor": self.factor}
