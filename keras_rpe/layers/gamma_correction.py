"""Dark pixels made brighter, or brighter ones darker."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any

_SMALLEST = 1e-12  # Keeps the slope finite at black.


@keras.saving.register_keras_serializable(package="keras_rpe")
class GammaCorrection(keras.layers.Layer):
    """Raise pixels to a power: x ↦ x^γ.

    With γ below 1 differences between dark pixels grow, so that a network sees faint structures
    beside bright ones. Black and white stay what they are.

    Args:
        gamma: Power γ in (0, ∞).
        **kwargs: Of `keras.layers.Layer`.

    Input shape:
        Any; values in [0, 1].

    Output shape:
        The same; values in [0, 1].

    Raises:
        ValueError: If `gamma` is out of its range.

    Source:
        The power law of Gonzalez & Woods, "Digital Image Processing", section 3.2.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import GammaCorrection
        >>> GammaCorrection(0.5)(np.array([0.0, 0.25, 1.0], "float32")).numpy().tolist()
        [0.0, 0.5, 1.0]
    """

    def __init__(self, gamma: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0.0 < gamma < float("inf"):
            raise ValueError(f"`gamma` must be positive and finite. Received: gamma={gamma}")
        self.gamma = gamma

    def call(self, inputs: Tensor) -> Tensor:
        """Return the corrected pixels."""
        # Powers of small numbers in 16 bits are coarse.
        x = ops.cast(inputs, "float32")
        y = ops.where(x > 0.0, ops.power(ops.maximum(x, _SMALLEST), self.gamma), 0.0)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {**super().get_config(), "gamma": self.gamma}
