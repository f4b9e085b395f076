"""Write features of torchvision's networks with made-up weights into a fixture of the tests.

The weights are drawn by `made_up_weights` of `tests/models/made_up_weights.py`, which the
test draws again from the names and shapes in the fixture. In an environment of its own:

    pip install torch torchvision
    PYTHONPATH=tests/models python tools/torchvision_reference.py \
        tests/fixtures/torchvision_features.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from made_up_weights import made_up_image, made_up_weights

DILATED = {"replace_stride_with_dilation": [False, True, True]}
NETWORKS = {
    "resnet50_torchvision": ("resnet50", {}),
    "resnet101_torchvision": ("resnet101", {}),
    "resnet50_torchvision_os8": ("resnet50", DILATED),
    "resnet101_torchvision_os8": ("resnet101", DILATED),
    "vgg16_torchvision": ("vgg16", {}),
}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG16_LEVELS = {"P1": 8, "P2": 15, "P3": 22, "P4": 29, "P5": 30}


def features(network: torch.nn.Module, image: np.ndarray, name: str) -> dict[str, torch.Tensor]:
    """The last maps at each stride, as `(channels, H, W)`."""
    x = torch.from_numpy(image).permute(0, 3, 1, 2)
    x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    maps = {}
    if name.startswith("vgg16"):
        levels = {index: level for level, index in VGG16_LEVELS.items()}
        for index, layer in enumerate(network.features):
            x = layer(x)
            if index in levels:
                maps[levels[index]] = x[0]
        return maps
    x = maps["P1"] = network.relu(network.bn1(network.conv1(x)))
    x = network.maxpool(x)
    for index, layer in enumerate((network.layer1, network.layer2, network.layer3, network.layer4)):
        x = layer(x)
        maps[f"P{min(index + 2, 3) if name.endswith('os8') else index + 2}"] = x
    return {level: m[0] if m.ndim == 4 else m for level, m in maps.items()}


def samples(feature: torch.Tensor) -> dict[str, list]:
    """The shape of a map, and some channels in its middle and its last corner."""
    channels, height, width = feature.shape
    few = feature[:: channels // 8, [0, height // 2, height - 1], [0, width // 2, width - 1]]
    values = [[float(f"{value:.7g}") for value in row] for row in few.T.tolist()]
    return {"shape": [height, width, channels], "values": values}


def main() -> None:
    """Write the fixture to the path in the first argument."""
    fixture: dict[str, dict] = {"arrays": {}, "features": {}}
    for name, (constructor, options) in NETWORKS.items():
        network = getattr(torchvision.models, constructor)(weights=None, **options).eval()
        state = network.state_dict()
        # The fully connected layers of vgg16 are large and not part of a backbone.
        names = [key for key in state if not key.startswith(("classifier.", "fc."))]
        shapes = fixture["arrays"][constructor] = {key: list(state[key].shape) for key in names}
        weights = {k: torch.from_numpy(v) for k, v in made_up_weights(shapes).items()}
        network.load_state_dict(weights, strict=False)
        with torch.no_grad():
            maps = features(network, made_up_image(), name)
        fixture["features"][name] = {level: samples(m) for level, m in maps.items()}
    Path(sys.argv[1]).write_text(json.dumps(fixture, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
