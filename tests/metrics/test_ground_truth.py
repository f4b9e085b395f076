import numpy as np
import pytest

from keras_rpe.metrics import GroundTruth


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
    assert stacked.is_crowd.tolist() == [False, True]
    assert stacked.is_ignored.tolist() == [False, False]


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


LABELS = np.array([[1, 2, 0]])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"masks": LABELS * 1.0}, r"`masks` must be an integer label map .*\(1, 3\) of float64"),
        ({"masks": LABELS > 0}, r"`masks` must be .* \(1, 3\) of bool"),
        ({"masks": LABELS[None]}, r"`masks` must be .* \(1, 1, 3\) of int64"),
        ({"masks": [[1, 2], [3]]}, r"`masks` must be"),
        ({"masks": -LABELS}, r"positive ids\. Received: a smallest value of -2"),
        ({"classes": [1]}, r"`classes` must hold a value for each id .*1 values and an id of 2"),
        ({"classes": [0, 1]}, r"`classes` must be from 1 inside the masks.*: a class of 0"),
        ({"classes": [1.0, 2.0]}, r"`classes` must hold an integer for each mask.*float64"),
        ({"classes": np.ones((3, 1), int)}, r"`classes` must hold one class .*\(3, 1\) for"),
        ({"crowd": [0, 1]}, r"`crowd` must hold a boolean for each mask.*int64"),
        ({"classes": [1, 2], "ignored": [True]}, r"`ignored` must hold one value .*Received: 1"),
        ({"void": np.zeros((3, 1), bool)}, r"`void` must be a boolean map .*\(1, 3\)\. Received"),
        ({"void": LABELS}, r"`void` must be a boolean map .*int64"),
        ({"ignore_label": 0.5}, r"`ignore_label` must be"),
        ({"classes": [1, 2], "ignore_label": 2}, r"`ignore_label` must not be one of the ids"),
    ],
)
def test_bad_masks_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        GroundTruth(**{"masks": LABELS, **kwargs})
    assert "\n" not in str(caught.value)
