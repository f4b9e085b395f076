"""Backbones by name, and the pyramid of any other Keras model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras

from keras_rpe.models.backbones.applications import APPLICATIONS, applications_backbone
from keras_rpe.models.backbones.digits_network import digits_network
from keras_rpe.models.backbones.efficientnet_lite import EFFICIENTNET_LITE, efficientnet_lite
from keras_rpe.models.backbones.resnet import RESNETS, resnet
from keras_rpe.models.backbones.unet_encoder import unet_encoder
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
    if name in RESNETS:
        return resnet(name, weights)
    if name in APPLICATIONS:
        return applications_backbone(name, weights)
    if name in _OWN:
        model = _OWN[name]()
        if weights == "imagenet":
            raise ValueError(
                f"`weights` of {name} must be None or the path of a weights file. "
                "Received: weights='imagenet'"
            )
        if weights is not None:
            load_all_weights(model, weights)
        return model
    raise ValueError(
        f"`backbone` must be a keras.Model or one of {', '.join(backbone_names())}. "
        f"Received: backbone={name!r}"
    )


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
