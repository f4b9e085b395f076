import keras
import numpy as np
import pytest

from keras_rpe.metrics import InstanceAveragePrecision, matching_dataset


def test_equals_the_pooled_average_precision_over_several_updates():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 20, (6, 5, 9))
    pred = np.where(rng.random(true.shape) < 0.3, 0, true) * 1000
    metric = InstanceAveragePrecision(threshold=0.7, ignore_label=4)
    for start in (0, 2, 4):
        metric.update_state(true[start : start + 2], pred[start : start + 2])
    expected = matching_dataset(true, pred, 0.7, ignore_label=4).average_precision
    assert 0 < expected < 1
    assert float(metric.result()) == pytest.approx(expected)


def test_empty_images_score_one_until_something_is_wrongly_predicted():
    metric = InstanceAveragePrecision()
    empty = np.zeros((2, 3, 3), int)
    metric.update_state(empty, empty)
    assert float(metric.result()) == 1.0
    metric.update_state(empty, empty + 1)
    assert float(metric.result()) == 0.0


def test_config_round_trip():
    metric = InstanceAveragePrecision(0.75, 32, 255, name="ap75")
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(copy) is InstanceAveragePrecision
    assert copy.get_config() == metric.get_config()
    assert (copy.threshold, copy.max_instances, copy.ignore_label) == (0.75, 32, 255)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"threshold": 0.49}, r"`threshold` must be a number from 0.5 to 1\. .*threshold=0.49"),
        ({"threshold": 1.5}, r"`threshold` must be"),
        ({"threshold": float("nan")}, r"`threshold` must be"),
        ({"max_instances": 0}, r"`max_instances` must be an integer from 1 to 8192.*=0"),
        ({"max_instances": 10**6}, r"`max_instances` must be"),
        ({"max_instances": 1.0}, r"`max_instances` must be"),
        ({"ignore_label": 0.5}, r"`ignore_label` must be"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        InstanceAveragePrecision(**kwargs)
