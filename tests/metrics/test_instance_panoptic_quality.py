import keras
import numpy as np
import pytest

from keras_rpe.metrics import InstancePanopticQuality, matching_dataset


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_equals_the_pooled_panoptic_quality(threshold):
    rng = np.random.default_rng(1)
    true = rng.integers(0, 15, (4, 6, 9))
    pred = np.where(rng.random(true.shape) < 0.25, 0, true)
    metric = InstancePanopticQuality(threshold)
    metric.update_state(true[:3], pred[:3])
    metric.update_state(true[3:], pred[3:])
    expected = matching_dataset(true, pred, threshold).panoptic_quality
    assert 0 < expected < 1
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_empty_images_score_one():
    metric = InstancePanopticQuality()
    empty = np.zeros((1, 3, 3), int)
    metric.update_state(empty, empty)
    assert float(metric.result()) == 1.0
    metric.update_state(empty + 1, empty)
    assert float(metric.result()) == 0.0


def test_config_round_trip():
    metric = InstancePanopticQuality(0.6, 64, -1, name="pq60")
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(copy) is InstancePanopticQuality
    assert copy.get_config() == metric.get_config()
    assert copy.ignore_label == -1
