"""Pixels of any range and any of the usual channel layouts to what a backbone takes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class ImageNormalization(keras.layers.Layer):
    """Map each image's own percentiles to 0 and 1, and gray or RGBA to three channels.

    Microscopes give 8, 12 or 16 bit and use little of it, so the range of an image says more than
    that of its data type. Values beyond the percentiles are clipped. Always in float32, since
    16-bit pixels do not fit in float16; without a gradient.

    Args:
        low: Lower percentile, in [0, 100).
        high: Upper percentile, in (low, 100].
        **kwargs: Of `keras.layers.Layer`.

    Input shape:
        `(batch, H, W, C)`, C = 1 (gray), 3 (RGB) or 4 (RGBA; the alpha is dropped). The percentiles
        are those of the mean of the color channels, so that colors keep their balance.

    Output shape:
        `(batch, H, W, 3)`, float32 in [0, 1]. An image of a single value becomes 0.

    Raises:
        ValueError: If the percentiles are not in order or C is none of 1, 3, 4.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import ImageNormalization
        >>> image = np.arange(300, 400, dtype="uint16").reshape(1, 10, 10, 1)
        >>> x = ImageNormalization(0, 100)(image)
        >>> tuple(x.shape), float(x[0, 0, 0, 0]), float(x[0, 9, 9, 2])
        ((1, 10, 10, 3), 0.0, 1.0)
    """

    def __init__(self, low: float = 1.0, high: float = 99.8, **kwargs: Any) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if not 0.0 <= low < high <= 100.0:
            raise ValueError(
                f"`low` and `high` must satisfy 0 <= low < high <= 100. Received: low={low}, "
                f"high={high}"
            )
        self.low = low
        self.high = high

    def call(self, inputs: Tensor) -> Tensor:
        """Return the normalised images."""
        channels = inputs.shape[-1]
        if len(inputs.shape) != 4 or channels not in (1, 3, 4, None):
            raise ValueError(
                "Images must be of shape (batch, H, W, C) with C = 1 (gray), 3 (RGB) or 4 (RGBA). "
                f"Received: shape={tuple(inputs.shape)}"
            )
        x = ops.stop_gradient(ops.cast(inputs, "float32"))
        x = ops.repeat(x, 3, axis=-1) if channels == 1 else x[..., :3]
        shape = ops.shape(x)
        pixels = shape[1] * shape[2]
        gray = ops.sort(ops.reshape(ops.mean(x, axis=-1), (shape[0], pixels)), axis=1)
        low = _percentile(gray, self.low, pixels)
        high = _percentile(gray, self.high, pixels)
        return ops.clip((x - low) / ops.maximum(high - low, 1e-6), 0.0, 1.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the normalised images."""
        return (*input_shape[:-1], 3)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {**super().get_config(), "low": self.low, "high": self.high}


def _percentile(ordered: Tensor, percent: float, pixels: Tensor | int) -> Tensor:
    """The nearest-rank percentile of sorted rows, shape `(batch, 1, 1, 1)`."""
    rank = ops.cast(ops.cast(pixels - 1, "float32") * (percent / 100.0) + 0.5, "int32")
    value = ops.take(ordered, ops.expand_dims(rank, 0), axis=1)
    return ops.reshape(value, (-1, 1, 1, 1))
