"""The size of the objects in an image, as a head of the network finds it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_rpe.arguments import check_integer
from keras_rpe.ops.maps import at_least_float32

Tensor = Any

_MOMENTUM = 0.99  # Of the diameter that the network is trained at.
_OCTAVES = (-4.0, 2.0)  # By which images are enlarged: large ones take time and memory.
_PER_OCTAVE = 0.5  # A cell of an object twice as large weighs 2 to the minus this as much.
_LEAST_CONFIDENCE = 0.5  # The sum over cells below which there is nothing to measure.


@keras.saving.register_keras_serializable(package="keras_rpe")
class ObjectSize(keras.layers.Layer):
    """Estimate the diameter of the objects around each cell of a feature map.

    The diameter of an object of area A is √(4 A / π), in pixels of the network's input. The layer
    also remembers the diameter that its network was trained at, which `update` follows, so that
    images can be resized to it.

    Args:
        filters: Channels of its hidden convolution.
        **kwargs: Of `keras.layers.Layer`.

    Input shape:
        Features `(batch, h, w, C)`, C static.

    Output shape:
        `(batch, h, w, 2)`, float32: the binary logarithm of the diameter, and the logit of how
        certain it is that an object of that size is there.

    Raises:
        ValueError: If `filters` is not a positive integer.

    Source:
        This project; that a network should see objects at one size is what the `diameter` of
        Stringer et al., "Cellpose" (Nature Methods 2021), is for.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import ObjectSize
        >>> tuple(ObjectSize()(np.zeros((1, 4, 5, 8), "float32")).shape)
        (1, 4, 5, 2)
    """

    def __init__(self, filters: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = check_integer("filters", filters)
        self.hidden = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", dtype=self.dtype_policy, name="hidden"
        )
        self.size = keras.layers.Conv2D(2, 1, dtype=self.dtype_policy, name="size")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the convolutions, and the diameter of training, which is not known yet."""
        self.hidden.build(input_shape)
        self.size.build((*input_shape[:-1], self.filters))
        self.log_diameter = self.add_weight(
            shape=(),
            initializer="zeros",
            trainable=False,
            dtype="float32",
            aggregation="mean",
            name="log_diameter",
        )

    def call(self, inputs: Tensor) -> Tensor:
        """Return logarithms of diameters, and logits of their certainty."""
        # An untrained head says 16 pixels.
        sizes = at_least_float32(self.size(self.hidden(inputs)))
        return ops.add(sizes, np.array([4.0, 0.0], "float32"))

    def update(self, log_diameters: Tensor) -> None:
        """Follow the diameters of training.

        Args:
            log_diameters: Their binary logarithms `(batch, ...)`, 0 where there is none.
        """
        there = ops.cast(log_diameters > 0, "float32")
        count = ops.sum(there)
        mean = ops.sum(ops.cast(log_diameters, "float32") * there) / ops.maximum(count, 1.0)
        before = ops.convert_to_tensor(self.log_diameter)
        # The first batch sets it.
        momentum = ops.where(before > 0, _MOMENTUM, 0.0)
        after = momentum * before + (1.0 - momentum) * mean
        self.log_diameter.assign(ops.where(count > 0, after, before))

    def octaves(
        self, sizes: Tensor, steps: Tensor, real: Tensor, unknown: Tensor | float = 0.0
    ) -> Tensor:
        """How many times an image should be doubled so that its objects have the trained diameter.

        Args:
            sizes: What the layer gave for the cells of some views, `(views, batch, cells, 2)`.
            steps: Side of a pixel of each view in pixels of the image, `(views, batch)`.
            real: Which cells lie in the image, `(views, batch, cells)`.
            unknown: The result where the network was not trained, or nothing is certain.

        Returns:
            `(batch,)`, in [-4, 2] where it is known.
        """
        log2 = sizes[..., 0]
        certain = ops.sigmoid(sizes[..., 1]) * ops.cast(real, "float32")
        off = log2 - self.log_diameter
        # The further a diameter is from those of training, the less it is to be relied on; and a
        # large object has more cells than a small one, without being more of an object.
        weight = certain * ops.exp(-0.5 * ops.square(off)) * ops.exp2(-_PER_OCTAVE * off)
        log2 = log2 + ops.expand_dims(ops.log2(steps), -1)
        total = ops.sum(weight, axis=(0, 2))
        there = total > 0
        found = ops.sum(weight * log2, axis=(0, 2)) / ops.where(there, total, 1.0)
        known = ops.logical_and(there, ops.sum(certain, axis=(0, 2)) > _LEAST_CONFIDENCE)
        known = ops.logical_and(known, self.log_diameter > 0)
        return ops.where(known, ops.clip(self.log_diameter - found, *_OCTAVES), unknown)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the logarithms and logits."""
        return (*input_shape[:-1], 2)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {**super().get_config(), "filters": self.filters}
