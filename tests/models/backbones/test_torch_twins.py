import json
from pathlib import Path

import numpy as np
import pytest
from made_up_weights import made_up_image, made_up_weights

from keras_rpe.models.backbones import TORCH_TWINS, load_backbone_weights, make_backbone

# Features of torchvision's networks, by tools/torchvision_reference.py.
REFERENCE = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "torchvision_features.json").read_text()
)
OF_TORCHVISION = [name for name in TORCH_TWINS if "torchvision" in name]


def arrays_of(name: str) -> dict[str, np.ndarray]:
    return made_up_weights(REFERENCE["arrays"][name.partition("_")[0]])


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * ("101" in n), id=n) for n in OF_TORCHVISION],
)
def test_features_are_those_of_torchvision(name: str) -> None:
    backbone = make_backbone(name)
    report = load_backbone_weights(backbone, arrays_of(name))
    assert len(report.matched) == len(backbone.weights)
    assert not report.unmatched_weights
    assert all(array.endswith("num_batches_tracked") for array, _ in report.unmatched_arrays)
    features = backbone(made_up_image())
    assert list(features) == list(REFERENCE["features"][name])
    for level, expected in REFERENCE["features"][name].items():
        feature = np.asarray(features[level])[0]
        assert list(feature.shape) == expected["shape"]
        height, width, channels = feature.shape
        few = feature[[0, height // 2, height - 1], [0, width // 2, width - 1], :: channels // 8]
        scale = np.abs(expected["values"]).max()
        np.testing.assert_allclose(few, expected["values"], rtol=1e-4, atol=1e-5 * scale)
