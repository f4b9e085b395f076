"""Mean shift as layers: the recurrent grouping of training and the seeded one of prediction."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.ops.attention import has_fused_attention
from keras_rpe.ops.backend import map_in_turn, on_gpu
from keras_rpe.ops.maps import (
    WindowGrid,
    at_least_float32,
    join_windows,
    merge_windows,
    overlapping_window_count,
    overlapping_windows,
    partition_windows,
    sample_nearest,
)
from keras_rpe.ops.mean_shift import mean_shift
from keras_rpe.ops.seeded_mean_shift import modes_of_points, seeded_modes

Tensor = Any


_MAX_ITERATIONS = 1000  # Mean shift has long ended; each loop can be an output of a model.
_MAX_SIDE = 65_536


@keras.saving.register_keras_serializable(package="keras_rpe")
class MeanShiftRNN(keras.layers.Layer):
    """Group embeddings by a fixed number of loops of mean shift, each differentiable.

    In a loop every pixel moves to the mean of all pixels of its image, weighted by the kernel
    exp((x_i·x_j - 1)/δ²), and back onto the sphere; the kernel is taken anew from the moved pixels
    (blurring mean shift). Kong & Fowlkes (CVPR 2018), section 4. The cost is O(N² D) time a loop
    for N pixels, but O(N D) memory, forward and backward, and the gradient is exact. On TensorFlow
    the loops are one `tf.while_loop`. Under mixed precision they run in float32, and on GPUs with
    JAX or PyTorch as fused attention in float16 (see `keras_rpe.ops.mean_shift`).

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
        block_size: Side of the tiles in which the kernel is formed, in pixels; default: 512 with
            windows of 64 pixels a side or more, else 256, and 128 for lists known to be of less
            than 2048 pixels. On a GPU the rows of a block; default: 2048.
        **kwargs: Of `keras.layers.Layer`.

    Call arguments:
        inputs: Unit embeddings `(batch, H, W, D)` or `(batch, N, D)`, D static.
        weights: Non-negative weight of each pixel as a neighbor, `(batch, N)`, or
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
        self.iterations = check_integer("iterations", iterations, 1, _MAX_ITERATIONS)
        self.bandwidth = check_number("bandwidth", bandwidth)
        self.step_size = check_number("step_size", step_size, "(0, 1]")
        self.trainable_bandwidth = trainable_bandwidth
        self.return_sequences = return_sequences
        self.window_size = _side("window_size", window_size or None)
        self.block_size = _side("block_size", block_size)
        self.log_bandwidth: Any = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Check the rank and make the weight of a trainable bandwidth."""
        _check_shape(self, input_shape, self.window_size)
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
        loops = check_integer("iterations", iterations or self.iterations, 1, _MAX_ITERATIONS)
        sequences = self.return_sequences if return_sequences is None else return_sequences
        size = window_size or self.window_size
        x, weights = _lists(at_least_float32(inputs), weights, size)
        x = mean_shift(
            x,
            bandwidth=self.current_bandwidth,
            iterations=loops,
            step_size=self.step_size,
            weights=weights,
            return_sequences=sequences,
            block_size=self.block_size or (512 if size and size >= 64 and not on_gpu() else None),
            implementation=self._implementation(x.shape[-1]),
        )
        lead = (loops,) if sequences else ()
        return ops.cast(_map(x, inputs, size, lead), self.compute_dtype)

    def _implementation(self, depth: int) -> str | None:
        half = self.compute_dtype in ("float16", "bfloat16")
        return "attention" if half and has_fused_attention(depth) else None

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


@keras.saving.register_keras_serializable(package="keras_rpe")
class SeededMeanShift(keras.layers.Layer):
    """Send every pixel to the mode of its group, found by mean shift from a few seeds.

    In place of `MeanShiftRNN` where no gradient is needed: there all pixels move and are compared
    with all, here only seeds move, up the density of the pixels, which stay where they are. As
    many seeds are drawn as it takes until every pixel is close to one or to its mode, so few large
    groups cost little and a small one is not lost. The cost is O(N · seeds · D) time a loop and
    O(N · D) memory for N pixels. Fixed data and merged modes are what `sklearn.cluster.MeanShift`
    does too, with a flat kernel. It runs in float32 under mixed precision.

    Args:
        max_seeds: Seeds at most, for each image or window: the bound of the cost, and of the
            number of groups. Pixels far from all seeds when they run out take the nearest mode.
        bandwidth: Kernel width δ, as in `MeanShiftRNN`.
        max_iterations: Loops at most; they end when no seed moves, mostly after two to four.
        seed_similarity: Calibrated cosine similarity (1 + cos)/2 to a seed or a mode at which a
            pixel needs no seed of its own. Groups that lie closer together may be taken for one;
            higher values cost more seeds.
        mode_similarity: Similarity at which two modes are one.
        window_size: Longest side, in pixels, of windows that are grouped each for itself: a
            spatial limit, so that like objects far apart do not share a mode. Only for maps.
        window_overlap: How many pixels of its neighbors a window sees beyond its own. An object
            that lies in two windows has one mode where both see most of it.
        **kwargs: Of `keras.layers.Layer`.

    Call arguments:
        inputs: Unit embeddings `(batch, H, W, D)` or `(batch, N, D)`, D static.
        weights: Weight of each pixel as a neighbor, in [0, 1], as in `MeanShiftRNN`; pixels of
            less than half weight get no seeds and are no neighbors, and those of at most 1/256 are
            of no group and stay where they are. Default: 1.
        bandwidth: In place of that of the layer, a number or a scalar tensor.
        grid: Where the windows of a larger map lie in this part of it: their side, and how many
            cells of the first are missing, of rows and of columns.

    Returns of a call:
        Embeddings of the shape of the input: all pixels of a group have the same one.

    Raises:
        ValueError: If an argument is out of its range or the input is not of rank 3 or 4.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import SeededMeanShift
        >>> x = np.repeat(np.eye(3, dtype="float32"), 20, axis=0)[None]  # three groups
        >>> noise = 0.05 * np.random.default_rng(0).normal(size=x.shape).astype("float32")
        >>> modes = np.asarray(SeededMeanShift()(x + noise))[0]
        >>> len(np.unique(modes, axis=0))
        3
    """

    def __init__(
        self,
        max_seeds: int = 512,
        bandwidth: float = 0.2,
        max_iterations: int = 10,
        seed_similarity: float = 0.9,
        mode_similarity: float = 0.96,
        window_size: int | None = None,
        window_overlap: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_seeds = check_integer("max_seeds", max_seeds, 1, 65_536)
        self.bandwidth = check_number("bandwidth", bandwidth)
        self.max_iterations = check_integer("max_iterations", max_iterations, 1, _MAX_ITERATIONS)
        # At 1, rounding would keep a point from being close to itself.
        self.seed_similarity = check_number("seed_similarity", seed_similarity, "[0, 1)")
        self.mode_similarity = check_number("mode_similarity", mode_similarity, "[0, 1)")
        self.window_size = _side("window_size", window_size)
        self.window_overlap = check_integer("window_overlap", window_overlap, 0, _MAX_SIDE)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Check the rank."""
        _check_shape(self, input_shape, self.window_size)

    def call(
        self,
        inputs: Tensor,
        weights: Tensor | None = None,
        bandwidth: Tensor | float | None = None,
        grid: WindowGrid | None = None,
    ) -> Tensor:
        """Return the modes of all pixels."""
        points, size, overlap = at_least_float32(inputs), self.window_size, self.window_overlap

        def grouped(only: Tensor | None = None) -> tuple[Tensor, Tensor]:
            x, mass = _lists(points, weights, size, overlap, grid, only)
            return seeded_modes(
                x,
                bandwidth=self.bandwidth if bandwidth is None else bandwidth,
                max_seeds=self.max_seeds,
                max_iterations=self.max_iterations,
                weights=mass,
                seed_similarity=self.seed_similarity,
                mode_similarity=self.mode_similarity,
            )

        if not (size and overlap and len(inputs.shape) == 4):
            modes, slots = grouped()
            slots = _map(ops.expand_dims(slots, -1), inputs, size)[..., 0]
        elif grid is None:
            modes, slots = grouped()
            slots = join_windows(slots, inputs, size, overlap)
        else:
            # What a tile of a large image takes of memory is not to depend on its windows.
            count = overlapping_window_count(points, size, overlap, grid)
            modes, slots = map_in_turn(grouped, count, (points.dtype, "int32"))
            # Numbers count on from one image to the next; here from one window to the next, too.
            first = ops.arange(count, dtype="int32") * (ops.shape(modes)[1] * ops.shape(modes)[2])
            slots = ops.where(slots < 0, -1, slots + ops.reshape(first, (-1, 1, 1)))
            slots = ops.swapaxes(slots, 0, 1)
            slots = ops.reshape(slots, (-1, ops.shape(slots)[2]))
            slots = join_windows(slots, inputs, size, overlap, grid)
        modes = modes_of_points(modes, slots, points)
        return ops.cast(modes, self.compute_dtype)

    def compute_output_spec(
        self,
        inputs: keras.KerasTensor,
        weights: keras.KerasTensor | None = None,
        bandwidth: keras.KerasTensor | float | None = None,
        grid: WindowGrid | None = None,
    ) -> keras.KerasTensor:
        """Shape and dtype of the modes."""
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the modes."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {
            **super().get_config(),
            "max_seeds": self.max_seeds,
            "bandwidth": self.bandwidth,
            "max_iterations": self.max_iterations,
            "seed_similarity": self.seed_similarity,
            "mode_similarity": self.mode_similarity,
            "window_size": self.window_size,
            "window_overlap": self.window_overlap,
        }


def _side(name: str, value: int | None) -> int | None:
    return None if value is None else check_integer(name, value, 1, _MAX_SIDE)


def _check_shape(
    layer: keras.layers.Layer, shape: tuple[int | None, ...], window_size: int | None
) -> None:
    rank = len(shape)
    if rank not in (3, 4) or shape[-1] is None or (rank == 3 and window_size):
        raise ValueError(
            f"The input of {type(layer).__name__} must be of shape (batch, H, W, D), or "
            "(batch, N, D) without `window_size`, with a known D. "
            f"Received: input_shape={shape}, window_size={window_size}"
        )


def _lists(
    x: Tensor,
    weights: Tensor | None,
    window_size: int | None,
    overlap: int = 0,
    grid: WindowGrid | None = None,
    only: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Lay out embeddings as lists `(lists, N, D)` that are grouped each for itself.

    With their weights `(lists, N, 1)`, 0 where a window is padded; `None` where all are 1.
    """
    if weights is not None:
        weights = ops.cast(weights, x.dtype)
    if len(x.shape) == 3:
        return x, None if weights is None else ops.expand_dims(weights, -1)
    batch, height, width = ops.shape(x)[:3]
    if weights is not None:
        weights = ops.expand_dims(sample_nearest(weights, height, width), -1)
    if window_size and overlap:
        if weights is not None:
            weights = overlapping_windows(weights, window_size, overlap, grid, only)
        return overlapping_windows(x, window_size, overlap, grid, only), weights
    if window_size:
        x, real = partition_windows(x, window_size)
        if weights is not None:
            real = real * partition_windows(weights, window_size)[0]
        return x, real
    pixels = height * width
    if weights is not None:
        weights = ops.reshape(weights, (batch, pixels, 1))
    return ops.reshape(x, (batch, pixels, x.shape[-1])), weights


def _map(
    lists: Tensor, like: Tensor, window_size: int | None, lead: tuple[int, ...] = ()
) -> Tensor:
    """Undo `_lists`, for points `(*lead, lists, N, D)`, to the shape of `like`."""
    shape, depth = ops.shape(like), lists.shape[-1]
    if window_size and len(like.shape) == 4:
        size = ops.shape(lists)
        # The windows of all loops are put back in one go, as of one larger batch.
        copies = math.prod(lead)
        lists = ops.reshape(lists, (copies * size[-3], size[-2], depth)) if lead else lists
        lists = merge_windows(lists, (copies * shape[0], shape[1], shape[2]), window_size)
    return ops.reshape(lists, (*lead, *shape[:-1], depth))
