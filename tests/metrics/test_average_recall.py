import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_images import coco_evaluation, coco_photographs, random_images

from keras_rpe.metrics import AverageRecall, Detections, GroundTruth, average_recall
from keras_rpe.models import Instances


def expect_coco(truths, predictions, numbers):
    recall = AverageRecall(numbers)
    for true, pred in zip(truths, predictions):
        recall.update(true, pred)
    figures = recall.result()
    for k in numbers:
        _, expected, _ = coco_evaluation(truths, predictions, use_classes=False, max_detections=k)
        if (expected == -1).all():
            proposed = any(len(p) for p in predictions)
            assert figures[f"AR@{k}"] == figures[f"AR50@{k}"] == float(not proposed)
            continue
        assert figures[f"AR@{k}"] == pytest.approx(expected.mean(), abs=1e-9)
        assert figures[f"AR50@{k}"] == pytest.approx(expected[0, 0], abs=1e-9)
        np.testing.assert_allclose(recall.recalls()[numbers.index(k)], expected[:, 0], atol=1e-9)
    return figures


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ignored=st.booleans())
def test_equals_pycocotools(seed, ignored):
    expect_coco(*random_images(seed, ignored=ignored), (1, 3, 100))


def test_equals_pycocotools_on_photographs(data_root):
    figures = expect_coco(*coco_photographs(data_root), (1, 10, 60, 100))
    assert 0.02 < figures["AR@1"] < figures["AR@10"] < figures["AR@60"] < 0.95
    assert figures["AR@60"] == figures["AR@100"] < figures["AR50@100"] < 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_more_proposals_and_looser_thresholds_find_no_less(seed):
    truths, predictions = random_images(seed)
    recall = AverageRecall((1, 2, 3, 5))
    for true, pred in zip(truths, predictions):
        recall.update(true, pred)
    values = recall.recalls()
    assert (np.diff(values, axis=0) >= 0).all()
    assert (np.diff(values, axis=1) <= 0).all()
    assert np.isfinite(values).all()


def test_excluded_void_leaves_the_masks():
    labels = np.array([[1, 1, 255, 255, 0, 2]])
    truth = GroundTruth(labels, ignore_label=255)
    pred = np.array([[[1, 1, 1, 1, 0, 0]], [[0, 0, 1, 1, 0, 0]]], bool)
    recall = AverageRecall((2,), exclude_void=True)
    recall.update(truth, pred)
    assert recall.result() == {"AR@2": 0.5, "AR50@2": 0.5}
    recall = AverageRecall((2,))
    recall.update(truth, pred)  # IoU 1/2 with mask 1
    assert recall.result() == {"AR@2": pytest.approx(0.05), "AR50@2": 0.5}
    # A mask without another pixel than void ones is not asked for.
    hidden = GroundTruth(np.array([[[True, False]]]), void=np.array([[True, False]]))
    assert average_recall([hidden], [np.zeros((1, 2), int)], exclude_void=True)["AR@1"] == 1.0


def test_maps_stacks_and_instances_are_the_same():
    labels = np.array([[3, 3, 0, 9], [3, 0, 0, 9]])
    pred = np.array([[2, 2, 0, 1], [2, 2, 0, 0]], np.int32)
    scores = np.array([0.2, 0.7], np.float32)
    instances = Instances(pred, scores, np.zeros((2, 4), int), np.ones(2, int))
    stacked = Detections(pred == np.array([1, 2])[:, None, None], scores)
    expected = average_recall([labels], [Detections(pred, scores)], (1, 2))
    assert expected["AR50@1"] == 0.5
    assert expected["AR50@2"] == 1.0
    assert average_recall([labels], [instances], (1, 2)) == expected
    true = labels == np.array([3, 9])[:, None, None]
    assert average_recall([true], [stacked], (1, 2)) == expected
    # Masks alone come in the order of their rank.
    assert average_recall([true], [stacked.masks[::-1]], (1, 2)) == expected


def test_reset_and_own_thresholds():
    recall = AverageRecall((1,), thresholds=[0.6, 0.8])
    recall.update(np.array([[1, 1, 1]]), np.array([[1, 1, 0]]))
    assert recall.result() == {"AR@1": 0.5}
    recall.reset()
    assert recall.result() == {"AR@1": 1.0}
    recall.update(np.array([[0]]), np.array([[1]]))
    assert recall.result() == {"AR@1": 0.0}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_proposals": ()}, r"`max_proposals` must be ascending integers from 1\. .*=\(\)"),
        ({"max_proposals": (10, 1)}, r"`max_proposals` must be"),
        ({"max_proposals": (0, 1)}, r"`max_proposals` must be"),
        ({"max_proposals": 10}, r"`max_proposals` must be"),
        ({"max_proposals": (1.5,)}, r"`max_proposals` must be"),
        ({"thresholds": (0.5, 1.2)}, r"`threshold` must be"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        AverageRecall(**kwargs)


def test_bad_images_are_refused():
    labels = np.array([[1, 0]])
    with pytest.raises(ValueError, match=r"same height and width. Received: \(1, 2\) and \(2, 1\)"):
        AverageRecall().update(labels, labels.T)
    with pytest.raises(ValueError, match=r"^Image 1: `masks` must be .* of float64"):
        average_recall([labels, labels], [labels, labels * 1.0])
    with pytest.raises(ValueError, match=r"equally many images.*only 1 in `predictions`"):
        average_recall([labels, labels], [labels])
    with pytest.raises(ValueError, match=r"only 0 in `truths`"):
        average_recall([], [labels])
