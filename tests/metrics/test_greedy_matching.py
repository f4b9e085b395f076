import numpy as np

from keras_rpe.metrics.masks import THRESHOLDS, match_greedily


def matched(iou, thresholds=(0.5,), ignored=None, crowd=None):
    iou = np.array(iou, float)
    no = np.zeros(iou.shape[1], bool)
    crowd = no if crowd is None else np.array(crowd)
    ignored = (no if ignored is None else np.array(ignored)) | crowd
    found, excused = match_greedily(iou, np.array(thresholds), ignored, crowd)
    return found.tolist(), excused.tolist()


def test_the_best_free_mask_at_each_threshold_anew():
    # At .8 the first prediction takes mask 0; at .5 likewise, so the second is left with mask 1.
    iou = [[0.9, 0.6], [0.95, 0.55]]
    assert matched(iou, (0.5, 0.8))[0] == [[True, True], [True, False]]


def test_a_mask_that_is_asked_for_comes_before_an_ignored_one():
    found = matched([[0.9, 0.6], [0.9, 0.6]], ignored=[True, False])
    assert found == ([[True, True]], [[False, True]])


def test_an_ignored_mask_is_taken_once_and_a_crowd_by_all():
    iou = [[0.9], [0.9], [0.9]]
    assert matched(iou, ignored=[True])[0] == [[True, False, False]]
    assert matched(iou, crowd=[True]) == ([[True] * 3], [[True] * 3])


def test_of_equal_overlaps_the_later_mask_is_taken():
    assert matched([[0.6, 0.6], [0.6, 0.0]])[0] == [[True, True]]
    assert matched([[0.6, 0.6], [0.0, 0.6]])[0] == [[True, False]]


def test_no_masks():
    for shape in ((0, 3), (3, 0)):
        found, excused = match_greedily(
            np.zeros(shape), np.array(THRESHOLDS), *np.zeros((2, shape[1]), bool)
        )
        assert found.shape == excused.shape == (10, shape[0])
        assert not found.any()
