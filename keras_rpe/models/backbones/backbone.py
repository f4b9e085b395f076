"""Backbones by name, and the pyramid of any other Keras model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras

from keras_rpe.layers import BatchStatisticsNormalization
from keras_rpe.models.backbones.applications import (
    APPLICATIONS,
    RESNETS,
    applications_backbone,
    resnet,
)
from keras_rpe.models.backbones.efficientnet_lite import EFFICIENTNET_LITE, efficientnet_lite
from keras_rpe.models.backbones.encoders import digits_network, unet_encoder
from keras_rpe.models.backbones.weights import load_all_weights

# Networks of this project, for which no weights of ImageNet exist.
_OWN: dict[str, Callable[..., keras.Model]] = {"unet_small": unet_encoder, "digits": digits_network}
_SIDE = 256  # The side of the image at which the strides of a foreign model are measured.


def backbone_names() -> list[str]:
    """Names that `backbone=` accepts.

    Example:
        >>> from keras_rpe.models.backbones import backbone_names
        >>> backbone_names()[:2]
        ['unet_small', 'digits']
    """
    return [*_OWN, *EFFICIENTNET_LITE, *RESNETS, *APPLICATIONS]


def make_backbone(name: str, weights: str | Path | None = None) -> keras.Model:
    """Build a backbone by name.

    Args:
        name: One of `backbone_names()`.
        weights: `None` for random weights; "imagenet", which EfficientNet-Lite takes from an
            installed package and the networks of keras.applications download; or the path of a
            file that `load_backbone_weights` takes and that has every weight.

    Returns:
        A model from images `(batch, H, W, 3)`, floats in [0, 1], to a dictionary of features.

    Raises:
        ValueError: If the name is unknown or the weights cannot be had.
        CheckpointError: If the file is damaged or does not fit.

    Example:
        >>> from keras_rpe.models.backbones import make_backbone
        >>> list(make_backbone("efficientnet_lite0").output)
        ['P1', 'P2', 'P3', 'P4', 'P5']
    """
    if name in EFFICIENTNET_LITE:
        return efficientnet_lite(name, weights)
    if name not in backbone_names():
        raise ValueError(
            f"`backbone` must be a keras.Model or one of {', '.join(backbone_names())}. "
            f"Received: backbone={name!r}"
        )
    if weights == "imagenet":
        if name in _OWN or "torchvision" in name:
            raise ValueError(
                f"`weights` of {name} must be None or the path of a weights file, such as the .pth "
                "file of torchvision for its networks. Received: weights='imagenet'"
            )
        return _with_imagenet_weights(name)
    if name in _OWN:
        model = _OWN[name]()
    else:
        model = resnet(name) if name in RESNETS else applications_backbone(name)
    if weights is not None:
        load_all_weights(model, weights)
    return model


def _with_imagenet_weights(name: str) -> keras.Model:
    """Build a network whose weights Keras downloads, or say in one sentence why it failed."""
    try:
        return (resnet if name in RESNETS else applications_backbone)(name, "imagenet")
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"`weights='imagenet'` of {name} are downloaded by Keras, which failed ({reason}): "
            f"pass the path of a weights file instead, such as weights='{name}.weights.h5'. "
            "Received: weights='imagenet'"
        ) from error


def pyramid(backbone: keras.Model) -> tuple[keras.Model, list[int]]:
    """The features of a backbone, finest first, one for each stride.

    Takes a Keras model with several outputs (a list or a dictionary), a KerasHub backbone
    (`pyramid_outputs`) or a KerasCV backbone (`pyramid_level_inputs`).

    Args:
        backbone: The model, from images `(batch, H, W, 3)`.

    Returns:
        A model from images to a list of features, and their strides, each twice the one before.

    Raises:
        ValueError: If the model has no pyramid of features, or a stride is missing in it.
    """
    if hasattr(backbone, "pyramid_outputs"):
        outputs: Any = backbone.pyramid_outputs
    elif hasattr(backbone, "pyramid_level_inputs"):
        names = backbone.pyramid_level_inputs
        outputs = [backbone.get_layer(name).output for name in names.values()]
    else:
        outputs = backbone.output
    outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs
    outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    features = keras.Model(backbone.inputs[0], outputs, name=f"{backbone.name}_features")
    shapes = features.compute_output_shape((1, _SIDE, _SIDE, 3))
    finest: dict[int, Any] = {}
    for output, shape in zip(outputs, shapes):
        if len(shape) == 4 and shape[1] and _SIDE % shape[1] == 0 and shape[1] == shape[2]:
            # Of several maps with one stride, the last is the deepest.
            finest[_SIDE // shape[1]] = output
    strides = sorted(finest)
    if not strides or any(b != 2 * a for a, b in pairwise(strides)):
        raise ValueError(
            "`backbone` must give features at strides that double, such as 2, 4, 8, 16. "
            f"Received: {backbone.name!r} with strides {strides} of output shapes {shapes}"
        )
    maps = [finest[stride] for stride in strides]
    return keras.Model(backbone.inputs[0], maps, name=features.name), strides


def use_batch_statistics(model: keras.Model, on: bool = True) -> keras.Model:
    """Copy a model with batch normalization by the statistics of the batch, or by moving ones.

    MatConvNet's checkpoints of Kong & Fowlkes (CVPR 2018) are evaluated with the statistics of the
    batch, even of one image, and the moving ones in them may be far off. The choice is part of the
    layers, so it lasts through saving, presets and exports.

    Args:
        model: A functional model, such as a backbone, or a task model, whose backbone is changed.
        on: Whether to use the statistics of the batch.

    Returns:
        A copy with the same weights, not compiled.

    Raises:
        ValueError: If it is not such a model.

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
