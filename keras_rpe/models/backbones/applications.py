"""Networks of keras.applications as backbones with a feature map at each stride."""

from __future__ import annotations

from typing import Any

import keras

# The last layer at strides 2, 4, 8, 16 and 32 of each network, and the pixel range it takes: its
# own preprocessing function for pixels in [0, 255], or None where the network includes it.
_TAPS: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "resnet50": (
        "ResNet50",
        "resnet",
        (
            "conv1_relu",
            "conv2_block3_out",
            "conv3_block4_out",
            "conv4_block6_out",
            "conv5_block3_out",
        ),
    ),
    "mobilenet_v2": (
        "MobileNetV2",
        "mobilenet_v2",
        (
            "expanded_conv_project_BN",
            "block_2_add",
            "block_5_add",
            "block_12_add",
            "block_16_project_BN",
        ),
    ),
}

APPLICATIONS = tuple(_TAPS)


def applications_backbone(name: str, weights: str | None = None) -> keras.Model:
    """Build a network of keras.applications that gives its features at strides 2 to 32.

    Args:
        name: One of `APPLICATIONS`.
        weights: `None` for random ones, "imagenet", which Keras downloads, or the path of a
            weights file.

    Returns:
        A model from images `(batch, H, W, 3)`, floats in [0, 1], to a dictionary of features `P1`
        (stride 2) to `P5` (stride 32).

    Raises:
        ValueError: If the name is unknown, or the weights cannot be had or read.

    Example:
        >>> from keras_rpe.models.backbones import applications_backbone
        >>> model = applications_backbone("mobilenet_v2")
        >>> model.output["P2"].shape[-1]
        24
    """
    if name not in _TAPS:
        raise ValueError(f"`name` must be one of {', '.join(_TAPS)}. Received: name={name!r}")
    constructor, module, taps = _TAPS[name]
    inputs = keras.Input((None, None, 3), name="image")
    x = keras.layers.Rescaling(255.0)(inputs)
    x = getattr(keras.applications, module).preprocess_input(x)
    try:
        network = getattr(keras.applications, constructor)(
            include_top=False, weights=weights, input_tensor=x
        )
    except Exception as error:
        if weights is None:
            raise
        raise ValueError(
            f"`weights` must be None, 'imagenet' (needs the internet) or the path of a weights "
            f"file of {name}, and it could not be loaded: {str(error).splitlines()[0]} "
            f"Received: weights={weights!r}"
        ) from error
    outputs = {f"P{i}": network.get_layer(tap).output for i, tap in enumerate(taps, start=1)}
    return keras.Model(inputs, outputs, name=name)
