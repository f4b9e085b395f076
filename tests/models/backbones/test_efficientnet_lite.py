from pathlib import Path

import keras
import numpy as np
import pytest

from keras_rpe.models.backbones import EFFICIENTNET_LITE, efficientnet_lite

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
