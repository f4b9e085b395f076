"""The grouping of prediction, whose time is linear in the number of pixels."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_rpe.layers.embedding_lists import embedding_lists, embedding_map
from keras_rpe.ops import at_least_float32, seeded_mean_shift

Tensor = Any

_MAX_SEEDS = 65_536


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
        **kwargs: Of `keras.layers.Layer`.

    Call arguments:
        inputs: Unit embeddings `(batch, H, W, D)` or `(batch, N, D)`, D static.
        weights: Weight of each pixel as a neighbour, in [0, 1], as in `MeanShiftRNN`; only pixels
            of at least half weight get seeds. Default: 1.
        bandwidth: In place of that of the layer, a number or a scalar tensor.

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value, most in (
            ("max_seeds", max_seeds, _MAX_SEEDS),
            ("max_iterations", max_iterations, 1000),
            ("window_size", 1 if window_size is None else window_size, 65_536),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(
                    f"`{name}` must be an integer of at least 1 and at most {most}. "
                    f"Received: {name}={value!r}"
                )
        if not 0.0 < bandwidth < math.inf:
            raise ValueError(
                f"`bandwidth` must be positive and finite. Received: bandwidth={bandwidth}"
            )
        for name, similarity in (
            ("seed_similarity", seed_similarity),
            ("mode_similarity", mode_similarity),
        ):
            # At 1, rounding would keep a point from being close to itself.
            if not 0.0 <= similarity < 1.0:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={similarity}")
        self.max_seeds = max_seeds
        self.bandwidth = float(bandwidth)
        self.max_iterations = max_iterations
        self.seed_similarity = seed_similarity
        self.mode_similarity = mode_similarity
        self.window_size = window_size

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Check the rank."""
        rank = len(input_shape)
        if rank not in (3, 4) or input_shape[-1] is None or (rank == 3 and self.window_size):
            raise ValueError(
                "The input of SeededMeanShift must be of shape (batch, H, W, D), or (batch, N, D) "
                f"without `window_size`, with a known D. Received: input_shape={input_shape}, "
                f"window_size={self.window_size}"
            )

    def call(
        self, inputs: Tensor, weights: Tensor | None = None, bandwidth: Tensor | float | None = None
    ) -> Tensor:
        """Return the modes of all pixels."""
        x, weights = embedding_lists(at_least_float32(inputs), weights, self.window_size)
        modes = seeded_mean_shift(
            x,
            bandwidth=self.bandwidth if bandwidth is None else bandwidth,
            max_seeds=self.max_seeds,
            max_iterations=self.max_iterations,
            weights=weights,
            seed_similarity=self.seed_similarity,
            mode_similarity=self.mode_similarity,
        )
        return ops.cast(embedding_map(modes, inputs, self.window_size), self.compute_dtype)

    def compute_output_spec(
        self,
        inputs: keras.KerasTensor,
        weights: keras.KerasTensor | None = None,
        bandwidth: keras.KerasTensor | float | None = None,
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
        }
