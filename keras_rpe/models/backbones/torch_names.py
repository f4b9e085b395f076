"""Names that the layers of backbones have in their twins of PyTorch."""

from __future__ import annotations

import re

# Positions of the convolutions in `features` of torchvision's vgg16, in order.
_VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG16_BLOCKS = (2, 2, 3, 3, 3)
_LITE_BLOCK = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_LITE = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "head_conv": "_conv_head",
    "head_bn": "_bn1",
    "logits": "_fc",
}

# Backbones that compute the same numbers as a network of PyTorch with the same weights.
TORCH_TWINS = (
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "resnet50_torchvision",
    "resnet101_torchvision",
    "resnet50_torchvision_os8",
    "resnet101_torchvision_os8",
    "vgg16_torchvision",
)


def torch_module(backbone: str, layer: str) -> str | None:
    """Name of a layer in the twin of PyTorch.

    Args:
        backbone: One of `TORCH_TWINS`.
        layer: Name of a layer of the backbone.

    Returns:
        The name of the module, or `None` if the twin has none.

    Example:
        >>> from keras_rpe.models.backbones.torch_names import torch_module
        >>> torch_module("resnet50_torchvision", "conv3_block1_0_bn")
        'layer2.0.downsample.1'
    """
    if backbone.startswith("efficientnet_lite"):
        match = re.fullmatch(r"block(\d+)_(\w+)", layer)
        if match:
            module = _LITE_BLOCK.get(match[2])
            return f"_blocks.{match[1]}.{module}" if module else None
        return _LITE.get(layer)
    if backbone.startswith("vgg16"):
        match = re.fullmatch(r"block([1-5])_conv([1-3])", layer)
        if not match:
            return None
        return f"features.{_VGG16[sum(_VGG16_BLOCKS[: int(match[1]) - 1]) + int(match[2]) - 1]}"
    match = re.fullmatch(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)", layer)
    if match:
        stage, block, position, kind = match.groups()
        module = f"{kind}{position}" if position != "0" else f"downsample.{int(kind == 'bn')}"
        return f"layer{int(stage) - 1}.{int(block) - 1}.{module}"
    return {"conv1_conv": "conv1", "conv1_bn": "bn1"}.get(layer)
