import numpy as np
import pytest

from keras_rpe.metrics import Detections, GroundTruth
from keras_rpe.metrics.masks import as_detections
from keras_rpe.models import Instances


def test_ids_of_a_map_with_and_without_tables():
    labels = np.array([[7, 0], [200, 7]], np.uint8)
    free = GroundTruth(labels)
    assert free.ids.tolist() == [7, 200]
    assert free.rows().toarray().tolist() == [[1, 0, 0, 1], [0, 0, 1, 0]]
    table = GroundTruth(np.array([[3, 0], [1, 3]]), [5, 6, 7])
    assert table.ids.tolist() == [1, 2, 3]
    assert table.rows().toarray().tolist() == [[0, 0, 1, 0], [0] * 4, [1, 0, 0, 1]]
    stacked = GroundTruth(np.array([[[True, False]], [[True, True]]]), crowd=[False, True])
    assert stacked.rows().toarray().tolist() == [[1, 0], [1, 1]]
    assert stacked.crowd.tolist() == [False, True]
    assert stacked.ignored.tolist() == [False, False]


def test_classes_from_a_map():
    labels = np.array([[7, 7, 0, 255]])
    truth = GroundTruth(labels, np.array([[4, 4, 0, 255]]), ignore_label=255)
    assert truth.classes.tolist() == [4]
    assert truth.void.tolist() == [[False, False, False, True]]
    with pytest.raises(ValueError, match=r"single class inside .*: classes \[3, 4\] inside mask 7"):
        GroundTruth(labels, np.array([[4, 3, 0, 5]]))


def test_void_is_that_of_the_map_and_of_the_label():
    void = np.array([[False, True, False]])
    assert GroundTruth(np.array([[9, 1, 0]]), void=void, ignore_label=9).void.tolist() == [
        [True, True, False]
    ]
    assert GroundTruth(np.array([[9, 1, 0]]), ignore_label=0).void.tolist() == [
        [False, False, True]
    ]


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (2, 2)])
def test_images_without_masks(shape):
    for truth in (GroundTruth(np.zeros(shape, int)), GroundTruth(np.zeros((0, *shape), bool), [])):
        assert len(truth) == 0
        assert truth.shape == shape
        assert truth.rows().shape == (0, shape[0] * shape[1])


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


LABELS = np.array([[1, 2, 0]])


@pytest.mark.parametrize(
    ("kind", "kwargs", "message"),
    [
        (GroundTruth, {"masks": LABELS * 1.0}, r"`masks`.*\(1, 3\) of float64"),
        (GroundTruth, {"masks": -LABELS}, "`masks`.*-2"),
        (GroundTruth, {"classes": [1]}, "`classes`.*Received: 1"),
        (GroundTruth, {"classes": [0, 1]}, "`classes`.*a class of 0"),
        (GroundTruth, {"classes": [1.0, 2.0]}, "`classes`.*float64"),
        (GroundTruth, {"crowd": [0, 1]}, "`crowd`.*int64"),
        (GroundTruth, {"classes": [1, 2], "ignored": [True]}, "`ignored`.*Received: 1"),
        (GroundTruth, {"void": np.zeros((3, 1), bool)}, r"`void`.*Received: shape \(3, 1\)"),
        (GroundTruth, {"classes": [1, 2], "ignore_label": 2}, "`ignore_label`.*2"),
        (Detections, {"scores": [0.5, np.nan]}, "`scores`.*nan"),
        (Detections, {"scores": [0.5]}, "`scores`.*Received: 1"),
        (Detections, {"scores": [0.5] * 2, "classes": [1] * 3}, "3 values here. Received: 2"),
    ],
)
def test_bad_masks_are_refused(kind, kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        kind(**{"masks": LABELS, **kwargs})
    assert "\n" not in str(caught.value)
