"""Backbones of KerasHub and of KerasCV, whose last release is of 2024. Neither is a dependency.

pip install -e ".[backbones]" pytest
pytest -m slow tests/models/backbones/test_foreign_backbones.py
"""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import pyramid

pytestmark = pytest.mark.slow
NEEDED = 'needs pip install "keras-rpe[backbones]"'


def hub_resnet() -> keras.Model:
    hub = pytest.importorskip("keras_hub", reason=NEEDED)
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64, 96],
        stackwise_num_blocks=[1, 1, 1],
        stackwise_num_strides=[1, 2, 2],
        block_type="basic_block",
    )


def hub_densenet() -> keras.Model:
    hub = pytest.importorskip("keras_hub", reason=NEEDED)
    return hub.models.DenseNetBackbone(stackwise_num_repeats=[2, 2, 2], growth_rate=8)


def cv_resnet() -> keras.Model:
    cv = pytest.importorskip("keras_cv", reason=NEEDED)
    return cv.models.ResNetV2Backbone(
        stackwise_filters=[16, 24, 32],
        stackwise_blocks=[2, 2, 2],
        stackwise_strides=[1, 2, 2],
        include_rescaling=False,
    )


def cv_csp_darknet() -> keras.Model:
    cv = pytest.importorskip("keras_cv", reason=NEEDED)
    return cv.models.CSPDarkNetBackbone(
        stackwise_channels=[16, 24, 32],
        stackwise_depth=[1, 1, 1],
        include_rescaling=False,
        use_depthwise=False,
    )


@pytest.mark.parametrize("build", [hub_resnet, hub_densenet, cv_resnet, cv_csp_darknet])
def test_it_trains_segments_and_is_saved(build: Callable[[], keras.Model], tmp_path: Path) -> None:
    backbone = build()
    strides = pyramid(backbone)[1]
    assert strides[-1] >= 8
    assert strides == [strides[0] * 2**i for i in range(len(strides))]
    model = InstanceSegmenter(backbone=backbone, embedding_dim=8, iterations=2)
    model.compile("sgd")
    images = np.random.default_rng(0).random((2, 48, 80, 3)).astype("float32")
    labels = np.zeros((2, 48, 80), "int32")
    labels[:, 8:24, 8:40] = 1
    labels[:, 30:40, 50:70] = 2
    before = [np.array(weight) for weight in backbone.trainable_weights]
    history = model.fit(images, labels, batch_size=2, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert any((np.asarray(w) != b).any() for w, b in zip(backbone.trainable_weights, before))
    image = images[0, :41, :70]  # Sides that no stride divides.
    instances = model.predict_instances(image)
    assert instances.labels.shape == (41, 70)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.backbone) is type(backbone)
    np.testing.assert_array_equal(loaded.predict_instances(image).labels, instances.labels)
    np.testing.assert_allclose(
        loaded(images[:1])["embedding"], model(images[:1])["embedding"], atol=1e-6
    )
