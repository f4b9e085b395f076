"""Batch normalisation by the statistics of the batch, in training and after."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class BatchStatisticsNormalization(keras.layers.BatchNormalization):
    """Batch normalisation that uses the statistics of the batch when predicting as well.

    MatConvNet's networks run so in their mode "normal", in which those of Kong & Fowlkes
    (CVPR 2018) are evaluated, one image at a time. The result for an image depends on the others of
    its batch, and at batch size 1 on that image alone. Training is that of `BatchNormalization`,
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
        """Return the normalised maps."""
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
