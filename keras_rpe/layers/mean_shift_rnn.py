"""The recurrent grouping module."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_rpe.layers.embedding_lists import embedding_lists, embedding_map
from keras_rpe.ops import at_least_float32, mean_shift

Tensor = Any

_MAX_ITERATIONS = 1000  # Mean shift has long ended; each loop can be an output of a model.


@keras.saving.register_keras_serializable(package="keras_rpe")
class MeanShiftRNN(keras.layers.Layer):
    """Group embeddings by a fixed number of loops of mean shift, each differentiable.

    In a loop every pixel moves to the mean of all pixels of its image, weighted by the kernel
    exp((x_i·x_j - 1)/δ²), and back onto the sphere; the kernel is taken anew from the moved pixels
    (blurring mean shift). Kong & Fowlkes (CVPR 2018), section 4. The cost is O(N² D) time a loop
    for N pixels, but O(N D) memory, forward and backward, and the gradient is exact. On TensorFlow
    the loops are one `tf.while_loop`. They run in float32 under mixed precision.

    Args:
        iterations: Number of loops T.
        bandwidth: Kernel width δ. Above 0.3, large groups swallow small ones; at 0.1, little moves
            that is not already close.
        step_size: η in (0, 1], the share of the way to the mean that a pixel goes in a loop.
        trainable_bandwidth: Whether δ is learned (as its logarithm), starting from `bandwidth`.
        return_sequences: Whether to return the embeddings after every loop.
        window_size: Longest side, in pixels, of windows that are grouped each for itself, which
            makes the time linear in the size of the image. Only for maps; default: no windows,
            every pixel sees the whole image.
        block_size: Side of the tiles in which the kernel is formed, in pixels; default: 512 for
            lists or windows of 4096 pixels or more, where that is known, otherwise 256.
        **kwargs: Of `keras.layers.Layer`.

    Call arguments:
        inputs: Unit embeddings `(batch, H, W, D)` or `(batch, N, D)`, D static.
        weights: Non-negative weight of each pixel as a neighbour, `(batch, N)`, or
            `(batch, H', W')` with H' and W' the same whole multiple of H and W; pixels of weight
            0, such as background, move but attract none. Default: 1. No gradient flows to it.
        iterations, return_sequences, window_size: In place of those of the layer in this call: a
            model may train with other loops and windows than it serves with.

    Returns of a call:
        Embeddings of the shape of the input; with `return_sequences`, `(iterations, ...)` before.

    Raises:
        ValueError: If an argument is out of its range or the input is not of rank 3 or 4.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import MeanShiftRNN
        >>> x = np.random.normal(size=(1, 8, 8, 3)).astype("float32")
        >>> x /= np.linalg.norm(x, axis=-1, keepdims=True)
        >>> MeanShiftRNN(iterations=4, return_sequences=True)(x).shape.as_list()
        [4, 1, 8, 8, 3]
    """

    def __init__(
        self,
        iterations: int = 5,
        bandwidth: float = 0.2,
        step_size: float = 1.0,
        trainable_bandwidth: bool = False,
        return_sequences: bool = False,
        window_size: int | None = None,
        block_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 < bandwidth < math.inf:
            raise ValueError(
                f"`bandwidth` must be positive and finite. Received: bandwidth={bandwidth}"
            )
        if not 0.0 < step_size <= 1.0:
            raise ValueError(f"`step_size` must be in (0, 1]. Received: step_size={step_size}")
        self.iterations = _loops(iterations)
        self.bandwidth = float(bandwidth)
        self.step_size = float(step_size)
        self.trainable_bandwidth = trainable_bandwidth
        self.return_sequences = return_sequences
        self.window_size = window_size and _positive_integer("window_size", window_size)
        self.block_size = block_size
        if block_size is not None:
            _positive_integer("block_size", block_size)
        self.log_bandwidth: Any = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Check the rank and make the weight of a trainable bandwidth."""
        rank = len(input_shape)
        if rank not in (3, 4) or input_shape[-1] is None or (rank == 3 and self.window_size):
            raise ValueError(
                "The input of MeanShiftRNN must be of shape (batch, H, W, D), or (batch, N, D) "
                f"without `window_size`, with a known D. Received: input_shape={input_shape}, "
                f"window_size={self.window_size}"
            )
        if self.trainable_bandwidth:
            self.log_bandwidth = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(math.log(self.bandwidth)),
                dtype="float64" if self.compute_dtype == "float64" else "float32",
                autocast=False,
                name="log_bandwidth",
            )

    @property
    def current_bandwidth(self) -> Tensor | float:
        """The bandwidth δ, a scalar tensor if it is trained."""
        return self.bandwidth if self.log_bandwidth is None else ops.exp(self.log_bandwidth)

    def call(
        self,
        inputs: Tensor,
        weights: Tensor | None = None,
        iterations: int | None = None,
        return_sequences: bool | None = None,
        window_size: int | None = None,
    ) -> Tensor:
        """Return the moved embeddings."""
        loops = _loops(iterations or self.iterations)
        sequences = self.return_sequences if return_sequences is None else return_sequences
        size = window_size or self.window_size
        x, weights = embedding_lists(at_least_float32(inputs), weights, size)
        x = mean_shift(
            x,
            bandwidth=self.current_bandwidth,
            iterations=loops,
            step_size=self.step_size,
            weights=weights,
            return_sequences=sequences,
            block_size=self.block_size or (512 if size and size >= 64 else None),
        )
        lead = (loops,) if sequences else ()
        return ops.cast(embedding_map(x, inputs, size, lead), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the moved embeddings."""
        return ((self.iterations,) if self.return_sequences else ()) + tuple(input_shape)

    def compute_output_spec(
        self,
        inputs: keras.KerasTensor,
        weights: keras.KerasTensor | None = None,
        iterations: int | None = None,
        return_sequences: bool | None = None,
        window_size: int | None = None,
    ) -> keras.KerasTensor:
        """Shape and dtype of the moved embeddings in such a call."""
        sequences = self.return_sequences if return_sequences is None else return_sequences
        lead = (iterations or self.iterations,) if sequences else ()
        return keras.KerasTensor((*lead, *inputs.shape), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {
            **super().get_config(),
            "iterations": self.iterations,
            "bandwidth": self.bandwidth,
            "step_size": self.step_size,
            "trainable_bandwidth": self.trainable_bandwidth,
            "return_sequences": self.return_sequences,
            "window_size": self.window_size,
            "block_size": self.block_size,
        }


def _loops(iterations: int) -> int:
    if _positive_integer("iterations", iterations) > _MAX_ITERATIONS:
        raise ValueError(
            f"`iterations` must be at most {_MAX_ITERATIONS}. Received: iterations={iterations}"
        )
    return iterations


def _positive_integer(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}")
    return value
