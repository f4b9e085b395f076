import numpy as np
import pytest

from keras_rpe.metrics import Detections
from keras_rpe.metrics.masks import as_detections
from keras_rpe.models import Instances


def test_equal_scores_rank_in_the_order_given():
    masks = np.zeros((4, 1, 1), bool)
    assert Detections(masks, [0.5, 0.9, 0.5, 0.9]).ranked().tolist() == [1, 3, 0, 2]
    assert Detections(masks).ranked().tolist() == [0, 1, 2, 3]


def test_instances_are_taken_as_they_are():
    labels = np.array([[2, 1]], np.int32)
    instances = Instances(labels, np.float32([0.1, 0.7]), np.zeros((2, 4), int), np.array([5, 6]))
    found = as_detections(instances)
    assert found.scores.tolist() == pytest.approx([0.1, 0.7])
    assert found.classes.tolist() == [5, 6]
    assert found.rows().toarray().tolist() == [[0, 1], [1, 0]]
    assert as_detections(found) is found


def test_classes_from_a_map():
    labels = np.array([[4, 0, 9]])
    assert Detections(labels, classes=labels * 2).classes.tolist() == [8, 18]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scores": [0.5, np.nan]}, r"`scores` must be finite\. Received: nan among 2 scores"),
        ({"scores": [0.5]}, r"`scores` must hold a value for each id"),
        ({"scores": [0.5] * 2, "classes": [1] * 3}, r"`classes` must hold one value for each of 2"),
        ({"scores": ["a", "b"]}, r"`scores` must hold a number for each mask"),
        ({"classes": [1, -1]}, r"`classes` must be from 1"),
    ],
)
def test_bad_predictions_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Detections(np.array([[1, 2]]), **kwargs)
