import warnings
from typing import Any

import numpy as np
import pytest

from keras_rpe.models import InstanceSegmenter, SemanticSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.models.checks import ClassCheck

IMAGES = np.random.default_rng(0).random((2, 16, 16, 3))


def tiny(task: type, **kwargs: Any) -> Any:
    """A model of two classes that is fast to build."""
    backbone = unet_encoder((4, 8), blocks=1)
    return task(backbone, num_classes=2, embedding_dim=4, fusion_filters=4, **kwargs)


def maps(*classes: int) -> np.ndarray:
    """Two class maps whose first pixels have these classes."""
    labels = np.ones((2, 16, 16), "int32")
    labels[0, 0, : len(classes)] = classes
    return labels


def fit(model: Any, labels: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(IMAGES, labels, verbose=0).history["loss"][0]


@pytest.mark.parametrize(
    ("wrong", "settings"), [(3, {"jit_compile": True}), (-2, {"run_eagerly": True})]
)
def test_a_class_beyond_those_of_the_model(wrong: int, settings: dict[str, Any]) -> None:
    model = tiny(SemanticSegmenter)
    model.compile("sgd", **settings)
    sentence = f"must hold 0 to num_classes=2, or `ignore_label`. Received: {wrong}$"
    with pytest.raises(ValueError, match=sentence):
        fit(model, maps(0, wrong, 2))
    # Nothing is wrong with other maps afterwards.
    assert np.isfinite(fit(model, maps(0, 1, 2)))


def test_classes_of_instances() -> None:
    model = tiny(InstanceSegmenter, iterations=1, position_periods=None, neighborhood=None)
    model.compile("sgd")
    with pytest.raises(ValueError, match="Received: 7$"):
        fit(model, {"instances": maps(1), "classes": maps(7)})


def test_void_is_no_wrong_class() -> None:
    model = tiny(SemanticSegmenter, ignore_label=255)
    model.compile("sgd")
    assert np.isfinite(fit(model, maps(255, 0, 2)))


def test_wrong_classes_become_void() -> None:
    check = ClassCheck(num_classes=3, void=-1)
    found = check.observe(np.array([[[-5, -1, 0, 3, 4]]]))
    assert np.array(found).tolist() == [[[-1, -1, 0, 3, -1]]]
