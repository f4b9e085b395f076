"""The embedding head: pixels to unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.ops.maps import at_least_float32, coordinate_channels, rotate_by_position

Tensor = Any

_MAX_DIM = 65_536  # A configuration must not ask for any amount of memory.
_SHORTEST = 1e-5


@keras.saving.register_keras_serializable(package="keras_rpe")
class SphericalEmbedding(keras.layers.Layer):
    """Send every pixel to a point on the unit sphere: a 1×1 convolution, then unit length.

    x = v / (‖v‖ + ε), Kong & Fowlkes (CVPR 2018), section 3. The length is taken in float32
    whatever the dtype policy.

    A convolution sees position only through its padding, so like objects far apart get the same
    embedding. With `coordinates`, two channels with each pixel's row and column, from -1 to 1
    across the map, are appended to the features. With `position_periods`, the sphere is rotated
    with position: what the features say of a pixel is then read relative to its place, so an
    object can take its own center as its embedding, anywhere in an image of any size.

    Args:
        dim: Dimension D of the embedding. In D dimensions, 2 D instances fit at margin 0.5.
        coordinates: Whether to append the coordinate channels.
        position_periods: Periods, in pixels of the map, of the rotation of the embedding with
            position, as in `keras_rpe.ops.rotate_by_position`; needs an even `dim`. `None`: no
            rotation. Half a period should exceed the distance of neighboring objects' centers.
        epsilon: ε, which keeps a zero vector at zero.
        use_bias: Whether the convolution has a bias.
        kernel_initializer: Initializer of the convolution.
        kernel_regularizer: Regularizer of the convolution.
        **kwargs: Of `keras.layers.Layer`.

    Input shape:
        `(batch, H, W, C)`, C static.

    Output shape:
        `(batch, H, W, dim)`, rows of unit length.

    Raises:
        ValueError: If `dim` is below 2, `epsilon` is not positive, `position_periods` are not or
            `dim` is odd with them, or the input is not of rank 4.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import SphericalEmbedding
        >>> x = SphericalEmbedding(8)(np.random.rand(2, 5, 6, 3).astype("float32"))
        >>> tuple(x.shape), bool(np.allclose(np.linalg.norm(x, axis=-1), 1, atol=1e-3))
        ((2, 5, 6, 8), True)
    """

    def __init__(
        self,
        dim: int,
        coordinates: bool = False,
        position_periods: Sequence[float] | None = None,
        epsilon: float = 1e-5,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dim = check_integer("dim", dim, 2, _MAX_DIM)
        self.coordinates = coordinates
        self.position_periods: list[float] | None = None
        if position_periods is not None:
            if dim % 2 or not position_periods:
                raise ValueError(
                    "`position_periods` must be None, or at least one number with an even `dim`. "
                    f"Received: position_periods={position_periods}, dim={dim}"
                )
            self.position_periods = [check_number("position_periods", p) for p in position_periods]
        self.epsilon = check_number("epsilon", epsilon)
        self.projection = keras.layers.Conv2D(
            dim,
            1,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            dtype=self.dtype_policy,
            name="projection",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the convolution for the static number of channels."""
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "The input of SphericalEmbedding must be of shape (batch, H, W, C) with a known C. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.projection.build((*input_shape[:-1], input_shape[-1] + 2 * self.coordinates))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the unit embeddings of a feature map."""
        if self.coordinates:
            inputs = ops.concatenate([inputs, coordinate_channels(inputs)], axis=-1)
        v = at_least_float32(self.projection(inputs))
        squared = ops.sum(ops.square(v), axis=-1, keepdims=True)
        there = squared > 0
        x = v / (ops.sqrt(ops.where(there, squared, 1.0)) + self.epsilon)
        if training is not False:
            # A vector this short has no direction to learn from, and its gradient, up to 1/ε, would
            # overflow float16.
            x = ops.where(squared > _SHORTEST**2, x, ops.stop_gradient(x))
        if self.position_periods:
            x = rotate_by_position(x, self.position_periods)
        return ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the embeddings."""
        return (*input_shape[:-1], self.dim)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {
            **super().get_config(),
            "dim": self.dim,
            "coordinates": self.coordinates,
            "position_periods": self.position_periods,
            "epsilon": self.epsilon,
            "use_bias": self.projection.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.projection.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.projection.kernel_regularizer),
        }
