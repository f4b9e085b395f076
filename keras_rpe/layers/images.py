"""What is done to images before the network sees them, and normalization by the batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_rpe.arguments import check_choice, check_integer, check_number
from keras_rpe.ops.backend import run_while, take
from keras_rpe.ops.maps import missing_to_multiple

Tensor = Any

MOST_LINES = 2048
"""Rows, and columns, of an image that count for its percentiles, at most."""


@keras.saving.register_keras_serializable(package="keras_rpe")
class ImageNormalization(keras.layers.Layer):
    """Map each image's own percentiles to 0 and 1, and gray or RGBA to three channels.

    They are nearest-rank percentiles of all pixels. Of more than 2048 rows or columns only every
    k-th one counts, with the least k that leaves no more.

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

    Call arguments:
        inputs: The images.
        limits: What becomes 0 and 1 in each image, `(batch, 2)`, in place of its percentiles: for a
            part of an image whose percentiles are known.

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
        self.low = check_number("low", low, "[0, 100)")
        self.high = check_number("high", high, f"({low}, 100]")

    def call(self, inputs: Tensor, limits: Tensor | None = None) -> Tensor:
        """Return the normalized images."""
        x = self.scaled(inputs, limits)
        return ops.repeat(x, 3, axis=-1) if inputs.shape[-1] == 1 else x

    def scaled(self, inputs: Tensor, limits: Tensor | None = None) -> Tensor:
        """Do what a call does, but leave gray images in one channel.

        Args:
            inputs: The images, `(batch, H, W, C)`, C = 1, 3 or 4.
            limits: As in a call.

        Returns:
            `(batch, H, W, 1)` for C = 1, otherwise `(batch, H, W, 3)`, float32 in [0, 1].

        Raises:
            ValueError: If C is none of 1, 3, 4.
        """
        channels = inputs.shape[-1]
        if len(inputs.shape) != 4 or channels not in (1, 3, 4, None):
            raise ValueError(
                "Images must be of shape (batch, H, W, C) with C = 1 (gray), 3 (RGB) or 4 (RGBA). "
                f"Received: shape={tuple(inputs.shape)}"
            )
        x = ops.stop_gradient(ops.cast(inputs, "float32"))[..., :3]
        if limits is None:
            counted = x
            for axis in (1, 2):
                side = ops.shape(x)[axis]
                step = (side + MOST_LINES - 1) // MOST_LINES
                counted = take(counted, ops.arange((side + step - 1) // step) * step, axis=axis)
            gray = counted if channels == 1 else ops.mean(counted, axis=-1)
            gray = ops.reshape(gray, (ops.shape(x)[0], -1))
            limits = _percentiles(gray, (self.low, self.high))
        low, high = (ops.reshape(limits[:, k], (-1, 1, 1, 1)) for k in range(2))
        return ops.clip((x - low) / ops.maximum(high - low, 1e-6), 0.0, 1.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the normalized images."""
        return (*input_shape[:-1], 3)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {**super().get_config(), "low": self.low, "high": self.high}


_HALVINGS = 10  # Enough for 8 bits and three channels at once.


def _percentiles(rows: Tensor, percents: tuple[float, ...]) -> Tensor:
    """The nearest-rank percentiles of rows, `(batch, percents)`, exactly.

    By halving intervals, in a fraction of the time of sorting.
    """
    last = ops.cast(ops.shape(rows)[1] - 1, "float32")
    places = [ops.cast(last * (percent / 100.0) + 0.5, "int32") for percent in percents]
    rank = ops.expand_dims(ops.stack(places), 0)

    def reached(values: Tensor) -> Tensor:
        counts = [
            ops.sum(ops.cast(rows <= values[:, k : k + 1], "int32"), axis=1)
            for k in range(len(percents))
        ]
        return ops.stack(counts, axis=1) > rank

    def search(below: Tensor, most: Tensor, found: Tensor) -> tuple[Tensor, ...]:
        """Of values above `below` and not above `most`, halve the interval, and try the least."""

        def halve(i: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, ...]:
            middle = 0.5 * low + 0.5 * high
            enough = reached(middle)
            return i + 1, ops.where(enough, low, middle), ops.where(enough, middle, high)

        start = ops.zeros((), "int32"), below, most
        low, high = run_while(lambda i, *_: i < _HALVINGS, halve, start)[1:]
        above = [
            ops.min(ops.where(rows > low[:, k : k + 1], rows, np.inf), axis=1)
            for k in range(len(percents))
        ]
        least = ops.stack(above, axis=1)
        # Nothing is above `low` where values are not numbers.
        right = ops.logical_or(reached(least), least == np.inf)
        most = ops.where(found, most, ops.where(right, least, high))
        return ops.where(right, low, least), most, ops.logical_or(found, right)

    least, most = (ops.min(rows, axis=1, keepdims=True), ops.max(rows, axis=1, keepdims=True))
    least, most = (one + 0.0 * ops.cast(rank, "float32") for one in (least, most))
    found = reached(least)
    start = (least, ops.where(found, least, most), found)
    return run_while(lambda *state: ops.any(ops.logical_not(state[2])), search, start)[1]


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
        self.gamma = check_number("gamma", gamma)

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
        check_choice("mode", mode, ("zeros", "reflect"))
        self.multiple = check_integer("multiple", multiple)
        self.mode = mode

    def call(self, inputs: Tensor) -> Tensor:
        """Return the padded maps."""
        batch, height, width = ops.shape(inputs)[:3]
        bottom = missing_to_multiple(height, self.multiple)
        right = missing_to_multiple(width, self.multiple)
        if self.mode == "reflect":
            x = take(inputs, _mirrored(height, height + bottom), axis=1)
            x = take(x, _mirrored(width, width + right), axis=2)
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


@keras.saving.register_keras_serializable(package="keras_rpe")
class BatchStatisticsNormalization(keras.layers.BatchNormalization):
    """Batch normalization that uses the statistics of the batch when predicting as well.

    MatConvNet's networks run so in their mode "normal", in which those of Kong & Fowlkes
    (CVPR 2018) are evaluated, one image at a time. The result for an image depends on the others of
    its batch, and at batch size 1 only on that image. Training is that of `BatchNormalization`,
    moving statistics included; they are kept with the weights and not used.

    Args:
        *args: Of `keras.layers.BatchNormalization`.
        **kwargs: Of `keras.layers.BatchNormalization`.

    Input shape:
        Any with `axis`, such as `(batch, H, W, C)`; no mask.

    Output shape:
        As the input.

    Raises:
        ValueError: If it is called with a mask.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import BatchStatisticsNormalization
        >>> x = BatchStatisticsNormalization()(np.array([[[[5.0]], [[7.0]]]], "float32"))
        >>> np.round(x, 2).ravel().tolist()
        [-1.0, 1.0]
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """Return the normalized maps."""
        if mask is not None:
            raise ValueError(
                "BatchStatisticsNormalization takes no mask. Received: a mask of the shape "
                f"{tuple(mask.shape)}"
            )
        if training and self.trainable:
            return super().call(inputs, training=training)
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axis = self.axis % len(x.shape)
        axes = [i for i in range(len(x.shape)) if i != axis]
        mean, variance = ops.moments(x, axes=axes, synchronized=self.synchronized)
        x = ops.batch_normalization(
            x,
            mean=mean,
            variance=variance,
            axis=self.axis,
            offset=None if self.beta is None else ops.cast(self.beta, x.dtype),
            scale=None if self.gamma is None else ops.cast(self.gamma, x.dtype),
            epsilon=self.epsilon,
        )
        return ops.cast(x, self.compute_dtype)
