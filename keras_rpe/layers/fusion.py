"""Feature maps of several strides into one, and maps back to the size of the image."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_rpe.arguments import check_integer
from keras_rpe.ops.maps import upsample_bilinear

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class BilinearUpsampling(keras.layers.Layer):
    """Enlarge maps by linear interpolation; each cell is blended with its neighbors.

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
        self.factor = check_integer("factor", factor, 1, 1024)

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


@keras.saving.register_keras_serializable(package="keras_rpe", name="Conv2DTranspose")
class SubpixelConv2DTranspose(keras.layers.Conv2DTranspose):
    """Enlarge maps by a transposed convolution that sees the 2×2 cells around each pixel.

    It has the weights and gives the result of Keras' `Conv2DTranspose` whose kernel is twice as
    long as its stride, in less time on a CPU: all pixels of a cell are channels of one 3×3
    convolution (sub-pixel convolution, Shi et al., CVPR 2016, section 3).

    Args:
        filters: Channels of the result.
        factor: By how much maps are enlarged, even.
        **kwargs: Of `keras.layers.Conv2DTranspose`, from its activation on.

    Input shape:
        `(batch, H, W, C)`, C static.

    Output shape:
        `(batch, factor · H, factor · W, filters)`.

    Raises:
        ValueError: If `factor` is odd or below 2.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import SubpixelConv2DTranspose
        >>> tuple(SubpixelConv2DTranspose(3, 2)(np.zeros((1, 5, 6, 8), "float32")).shape)
        (1, 10, 12, 3)
    """

    def __init__(self, filters: int, factor: int, **kwargs: Any) -> None:
        self.factor = check_integer("factor", factor, 2, 1024)
        if factor % 2:
            raise ValueError(f"`factor` must be even. Received: factor={factor}")
        fixed = {"padding": "same", "output_padding": None, "dilation_rate": 1}
        super().__init__(
            filters, 2 * factor, factor, data_format="channels_last", **fixed, **kwargs
        )

    def call(self, inputs: Tensor) -> Tensor:
        """Return the enlarged maps."""
        batch, height, width = ops.shape(inputs)[:3]
        side, depth = self.factor, inputs.shape[-1]
        # Pixel r of a cell sees cell m of three along an axis by place s·(2 - m) + r of the kernel
        # with half a stride of zeros on both sides. One constant index, which converters fold.
        kernel = ops.reshape(self.kernel, (-1,))
        kernel = ops.concatenate([ops.zeros_like(kernel[:1]), kernel], axis=0)
        index = 1 + np.arange(math.prod(self.kernel.shape)).reshape(self.kernel.shape)
        half = (side // 2, side // 2)
        index = np.pad(index, (half, half, (0, 0), (0, 0)))
        places = (side * np.arange(3)[::-1, None] + np.arange(side)).ravel()
        index = index[places][:, places].reshape(3, side, 3, side, self.filters, depth)
        index = index.transpose(0, 2, 5, 1, 3, 4).reshape(3, 3, depth, -1)
        kernel = ops.take(kernel, index.astype("int32"), axis=0)
        x = ops.conv(inputs, kernel, padding="same", data_format="channels_last")
        x = ops.reshape(x, (batch * height, width, side, side * self.filters))
        x = ops.transpose(x, (0, 2, 1, 3))
        x = ops.reshape(x, (batch, height * side, width * side, self.filters))
        return self.activation(x if self.bias is None else x + self.bias)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        fixed = {"kernel_size", "strides", "padding", "output_padding", "data_format"}
        fixed |= {"dilation_rate", "groups"}
        config = {**super().get_config(), "factor": self.factor}
        return {name: value for name, value in config.items() if name not in fixed}


# Files of weights are keyed by the names of classes: so those with Keras' layer can be loaded.
SubpixelConv2DTranspose.__name__ = "Conv2DTranspose"


@keras.saving.register_keras_serializable(package="keras_rpe")
class CropLike(keras.layers.Layer):
    """Keep the upper left part of a map that is as large as another map.

    Call arguments:
        inputs: Map to crop, `(batch, H, W, C)`.
        like: Map for its size, `(batch, h, w, ...)`, h ≤ H and w ≤ W.

    Returns of a call:
        `(batch, h, w, C)`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import CropLike
        >>> tuple(CropLike()(np.zeros((1, 32, 48, 2)), np.zeros((1, 30, 33, 3))).shape)
        (1, 30, 33, 2)
    """

    def call(self, inputs: Tensor, like: Tensor) -> Tensor:
        """Return the cropped map."""
        return inputs[:, : ops.shape(like)[1], : ops.shape(like)[2]]

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], like_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Shape of the cropped map."""
        return (inputs_shape[0], like_shape[1], like_shape[2], *inputs_shape[3:])


@keras.saving.register_keras_serializable(package="keras_rpe")
class FeatureFusion(keras.layers.Layer):
    """Fuse the features of a backbone, from the coarsest to the finest.

    Each stage: a 1×1 convolution brings the finer features to the common width, the coarser ones
    are doubled in size (nearest) and added, and a 3×3 convolution with batch normalization and
    ReLU follows. A top-down pathway as in feature pyramid networks (Lin et al., CVPR 2017).

    Args:
        filters: Common width.
        return_pyramid: Whether to return the fused maps of all stages, in place of only that of
            the finest.
        lateral_initializer: Initializer of the 1×1 convolutions, but for that of the coarsest map.
            With "zeros" the finer maps come in as training goes: better where they are of other
            sizes than what comes from above, as the features of pretrained networks are.
        **kwargs: Of `keras.layers.Layer`.

    Input shape:
        A list of maps, finest first, each half as high and wide as the one before:
        `(batch, H/2^k, W/2^k, C_k)`.

    Output shape:
        `(batch, H, W, filters)`, at the resolution of the first map; with `return_pyramid` a list
        of such maps, each at the resolution of an input.

    Raises:
        ValueError: If `filters` is below 1 or the input is not a list of maps.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import FeatureFusion
        >>> maps = [np.zeros((1, 16, 16, 8), "float32"), np.zeros((1, 8, 8, 12), "float32")]
        >>> tuple(FeatureFusion(32)(maps).shape)
        (1, 16, 16, 32)
    """

    def __init__(
        self,
        filters: int = 64,
        return_pyramid: bool = False,
        lateral_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = check_integer("filters", filters, 1, 65_536)
        self.return_pyramid = return_pyramid
        self.lateral_initializer = keras.initializers.get(lateral_initializer)
        self.laterals: list[Any] = []
        self.smooths: list[Any] = []
        self.up = keras.layers.UpSampling2D(2, interpolation="nearest", dtype=self.dtype_policy)

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        """Make a lateral convolution for each map and a fusing one for each but the coarsest."""
        if not all(isinstance(shape, (list, tuple)) and len(shape) == 4 for shape in input_shape):
            raise ValueError(
                "The input of FeatureFusion must be a list of maps (batch, H, W, C). "
                f"Received: shapes {input_shape}"
            )
        for level, shape in enumerate(input_shape):
            finer = level < len(input_shape) - 1
            lateral = keras.layers.Conv2D(
                self.filters,
                1,
                kernel_initializer=self.lateral_initializer if finer else "glorot_uniform",
                dtype=self.dtype_policy,
                name=f"lateral_{level}",
            )
            lateral.build(shape)
            self.laterals.append(lateral)
            fused = (None, None, None, self.filters)
            smooth = keras.Sequential(
                [
                    # Named, so that weights are found again beside any other backbone.
                    keras.layers.Conv2D(
                        self.filters,
                        3,
                        padding="same",
                        use_bias=False,
                        dtype=self.dtype_policy,
                        name="conv",
                    ),
                    keras.layers.BatchNormalization(
                        synchronized=_is_replicated(), dtype=self.dtype_policy, name="norm"
                    ),
                    keras.layers.ReLU(dtype=self.dtype_policy),
                ],
                name=f"smooth_{level}",
            )
            smooth.build(fused)
            self.smooths.append(smooth)

    def call(self, inputs: list[Tensor], training: bool | None = None) -> Tensor:
        """Return the fused map, or those of all stages."""
        x, fused = None, []
        for features, lateral, smooth in list(zip(inputs, self.laterals, self.smooths))[::-1]:
            finer = lateral(features)
            x = smooth(finer if x is None else finer + self.up(x), training=training)
            fused.append(x)
        return fused[::-1] if self.return_pyramid else x

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> Any:
        """Shape of the fused map, or those of all stages."""
        shapes = [(*shape[:-1], self.filters) for shape in input_shape]
        return shapes if self.return_pyramid else shapes[0]

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "return_pyramid": self.return_pyramid,
            "lateral_initializer": keras.initializers.serialize(self.lateral_initializer),
        }


def _is_replicated() -> bool:
    """Whether several replicas are trained, whose statistics are then those of the whole batch."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.distribute.get_strategy().num_replicas_in_sync > 1)
