"""Whether batch normalisation uses the statistics of the batch when predicting."""

from __future__ import annotations

from typing import Any

import keras

from keras_rpe.layers import BatchStatisticsNormalization


def use_batch_statistics(model: keras.Model, on: bool = True) -> keras.Model:
    """Copy a model with batch normalisation by the statistics of the batch, or by moving ones.

    MatConvNet's checkpoints of Kong & Fowlkes (CVPR 2018) are evaluated with the statistics of the
    batch, even of one image, and the moving ones in them may be of little use. The choice is part
    of the layers, so it lasts through saving, presets and exports.

    Args:
        model: A functional model, such as a backbone, or a task model, whose backbone is changed.
        on: Whether to use the statistics of the batch.

    Returns:
        A copy with the same weights, not compiled.

    Raises:
        ValueError: If it is no such model.

    Example:
        >>> from keras_rpe.models.backbones import unet_encoder, use_batch_statistics
        >>> model = use_batch_statistics(unet_encoder((8, 16)))
        >>> type(model.get_layer("P1_norm0")).__name__
        'BatchStatisticsNormalization'
    """
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, keras.Model):
        changed = keras.saving.serialize_keras_object(use_batch_statistics(backbone, on))
        copy = type(model).from_config({**model.get_config(), "backbone": changed})
    elif isinstance(model, keras.Sequential) or hasattr(model, "operations"):
        copy = keras.models.clone_model(model, clone_function=lambda layer: _changed(layer, on))
    else:
        raise ValueError(
            "`model` must be a functional Keras model or a task model with a backbone. "
            f"Received: {type(model).__name__}"
        )
    copy.set_weights(model.get_weights())
    return copy


def _changed(layer: keras.layers.Layer, on: bool) -> keras.layers.Layer:
    config: dict[str, Any] = layer.get_config()
    kind = type(layer)
    if kind in (keras.layers.BatchNormalization, BatchStatisticsNormalization):
        kind = BatchStatisticsNormalization if on else keras.layers.BatchNormalization
    return kind.from_config(config)
