import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_images import coco_evaluation, coco_photographs, random_images, stack

from keras_rpe.metrics import (
    Detections,
    GroundTruth,
    MaskAveragePrecision,
    mask_average_precision,
)
from keras_rpe.models import Instances


def streamed(truths, predictions, *args, **kwargs):
    precision = MaskAveragePrecision(*args, **kwargs)
    for true, pred in zip(truths, predictions):
        precision.update(true, pred)
    return precision


def expect_coco(truths, predictions, **kwargs):
    found = streamed(truths, predictions, **kwargs)
    expected, _, labels = coco_evaluation(truths, predictions, **kwargs)
    by_class = found.class_results()
    asked = (expected > -1).all(axis=(0, 1))
    assert list(by_class) == [label for label, one in zip(labels, asked) if one]
    figures = found.result()
    if not asked.any():
        assert figures["AP"] == float(not any(len(p) for p in predictions))
        return figures
    for index in np.flatnonzero(asked):
        mine = by_class[labels[index]]
        assert mine["AP"] == pytest.approx(expected[..., index].mean(), abs=1e-9)
        assert mine["AP75"] == pytest.approx(expected[5, :, index].mean(), abs=1e-9)
    by_threshold = expected[..., asked].mean(axis=(1, 2))
    assert figures["AP"] == pytest.approx(by_threshold.mean(), abs=1e-9)
    values = [figures[f"AP{t}"] for t in range(50, 100, 5)]
    np.testing.assert_allclose(values, by_threshold, atol=1e-9)
    return figures


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    crowd=st.booleans(),
    ignored=st.booleans(),
    limit=st.sampled_from([1, 2, 100]),
)
def test_equals_pycocotools(seed, crowd, ignored, limit):
    truths, predictions = random_images(seed, crowd=crowd, ignored=ignored)
    expect_coco(truths, predictions, max_detections=limit)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), area=st.sampled_from([(0, 12), (6, 20), (12, 1000)]))
def test_equals_pycocotools_in_a_range_of_areas(seed, area):
    expect_coco(*random_images(seed, classes=2), area_range=area)


def test_many_images_of_one_class_with_ties():
    truths, predictions = random_images(5, number=60, classes=1)
    figures = expect_coco(truths, predictions)
    assert 0.02 < figures["AP"] < figures["AP50"] < 0.95


def test_of_equal_overlaps_the_later_mask_is_taken_as_in_pycocotools():
    truth = GroundTruth(np.array([[1, 1, 2, 2]]), [1, 1])
    for last in ([1, 1, 0, 0], [0, 0, 1, 1]):
        masks = np.array([[[1, 1, 1, 1]], [last]], bool)
        figures = expect_coco([truth], [Detections(masks, [0.9, 0.8], [1, 1])])
        # The first prediction overlaps both masks by half and takes the second one.
        assert (figures["AP50"] == 1.0) is (last[0] == 1)


def test_equals_pycocotools_on_photographs(data_root):
    truths, predictions = coco_photographs(data_root)
    figures = expect_coco(truths, predictions)
    assert 0.2 < figures["AP"] < figures["AP75"] + 0.1 < figures["AP50"] < 0.99
    small, large = (
        expect_coco(truths, predictions, area_range=a) for a in ((0, 1024), (9216, 1e9))
    )
    assert small["AP"] < large["AP"]


def voc_reference(truths, predictions, threshold):
    """mAP^r in plain loops: void pixels cut away, greedy matching, area under the envelope."""
    results = []
    for label in sorted({int(c) for t in truths for c in t.classes}):
        ranking, number = [], 0
        for true, pred in zip(truths, predictions):
            void = np.zeros(true.shape, bool) if true.void is None else true.void
            gt = [
                [mask & ~void, bool(crowd), bool(crowd or ignored or (mask.any() and gone))]
                for mask, c, crowd, ignored in zip(
                    stack(true), true.classes, true.is_crowd, true.is_ignored
                )
                for gone in [not (mask & ~void).any()]
                if c == label
            ]
            number += sum(not ignored for _, _, ignored in gt)
            taken = [False] * len(gt)
            found = [
                (score, mask)
                for mask, c, score in zip(stack(pred), pred.classes, pred.scores)
                if c == label
            ]
            for score, whole in sorted(found, key=lambda pair: -pair[0]):
                mask = whole & ~void
                best = None
                for wanted in (False, True):
                    for i, (region, crowd, ignored) in enumerate(gt):
                        if ignored is not wanted or (taken[i] and not crowd):
                            continue
                        union = mask.sum() if crowd else (mask | region).sum()
                        iou = (mask & region).sum() / union if union else 0.0
                        if iou >= threshold and (best is None or iou >= best[0]):
                            best = (iou, i)
                    if best:
                        break
                if best:
                    taken[best[1]] = True
                    ranking.append((score, None if gt[best[1]][2] else True))
                else:
                    lost = whole.any() and not mask.any()
                    ranking.append((score, None if lost else False))
        if not number:
            continue
        right = [r for _, r in sorted(ranking, key=lambda pair: -pair[0]) if r is not None]
        points, tp = [], 0
        for rank, one in enumerate(right, 1):
            tp += one
            points.append((tp / number, tp / rank))
        area, last = 0.0, 0.0
        for recall, _ in points:
            area += (recall - last) * max(p for r, p in points if r >= recall)
            last = recall
        results.append(area)
    return results


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ignored=st.booleans())
def test_voc_equals_plain_loops(seed, ignored):
    truths, predictions = random_images(seed, ignored=ignored)
    found = streamed(truths, predictions, "voc")
    for threshold, name in ((0.5, "AP50"), (0.7, "AP70")):
        expected = voc_reference(truths, predictions, threshold)
        by_class = [values[name] for values in found.class_results().values()]
        np.testing.assert_allclose(by_class, expected, atol=1e-9)
        if expected:
            assert found.result()[name] == pytest.approx(np.mean(expected), abs=1e-9)


def test_voc_on_photographs(data_root):
    truths, predictions = coco_photographs(data_root)
    found = mask_average_precision(truths, predictions, "voc")
    assert found["AP50"] == pytest.approx(np.mean(voc_reference(truths, predictions, 0.5)))
    assert 0.1 < found["AP70"] < found["AP50"] < 1


def test_duplicates_are_wrong_and_a_crowd_takes_all():
    labels = np.array([[1, 1, 0, 2, 2, 2]])
    masks = np.array([[[1, 1, 0, 0, 0, 0]]] * 2 + [[[0, 0, 0, 1, 0, 0]]] * 3, bool)
    pred = Detections(masks, np.arange(5, 0, -1), np.ones(5, int))
    crowd = GroundTruth(labels, [1, 1], crowd=[False, True])
    assert mask_average_precision([crowd], [pred])["AP"] == 1.0  # the duplicate comes after
    worse = Detections(masks[[2, 0, 1]], [3, 1, 2], [1, 1, 1])
    assert mask_average_precision([crowd], [worse], "voc")["AP"] == 1.0
    assert mask_average_precision([GroundTruth(labels, [1, 1])], [worse], "voc")["AP"] == 0.25


def test_a_small_part_of_void_excuses_a_coco_prediction():
    void = np.array([[False, True, True, True]])
    truth = GroundTruth(np.array([[1, 0, 0, 0]]), [1], void=void)
    masks = np.array([[[0, 0, 1, 1]], [[1, 0, 0, 0]]], bool)
    pred = Detections(masks, [0.9, 0.8], [1, 1])
    assert mask_average_precision([truth], [pred])["AP"] == 1.0
    assert mask_average_precision([truth], [pred], "voc")["AP"] == 1.0
    without = GroundTruth(truth.masks, [1])
    assert mask_average_precision([without], [pred], "voc")["AP"] == 0.5


def test_instances_of_a_model_and_label_maps():
    labels = np.array([[0, 1, 1], [2, 2, 0]], np.int32)
    instances = Instances(
        labels, np.array([0.9, 0.8], np.float32), np.zeros((2, 4), int), np.array([4, 2])
    )
    classes = np.array([[0, 4, 4], [2, 2, 0]])
    truth = GroundTruth(labels * 10, classes)
    found = streamed([truth], [instances])
    assert found.result()["AP"] == 1.0
    assert list(found.class_results()) == [2, 4]


def test_nothing_true():
    precision = MaskAveragePrecision("voc")
    nothing = {"AP": 1.0, "AP50": 1.0, "AP70": 1.0}
    assert precision.result() == nothing
    empty = GroundTruth(np.zeros((2, 2), int), np.zeros((2, 2), int))
    precision.update(empty, Detections(np.zeros((0, 2, 2), bool), [], []))
    assert precision.result() == nothing
    assert precision.class_results() == {}
    precision.update(empty, Detections(np.ones((1, 2, 2), bool), [1], [1]))
    assert set(precision.result().values()) == {0.0}
    precision.reset()
    assert precision.result() == nothing


def test_memory_does_not_grow_with_pixels():
    precision = MaskAveragePrecision()
    labels = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((200, 200), int))
    for _ in range(3):
        precision.update(GroundTruth(labels, [1] * 4), Detections(labels, [0.5] * 4, [1] * 4))
    kept = [
        array
        for table in (precision._scores, precision._right, precision._wrong)
        for arrays in table.values()
        for array in arrays
    ]
    assert sum(array.nbytes for array in kept) == 3 * 4 * (8 + 2 * 10)
    assert all(array.base is None or array.base.nbytes < 1000 for array in kept)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"protocol": "lvis"}, r'`protocol` must be "coco" or "voc"\. Received: .*lvis'),
        ({"max_detections": 0}, r"`max_detections` must be .* Received: max_detections=0"),
        ({"max_detections": 1.0}, r"`max_detections` must be"),
        ({"area_range": (3, 1)}, r"`area_range` must be .* Received: area_range=\(3, 1\)"),
        ({"area_range": 5}, r"`area_range` must be"),
        ({"area_range": (0, float("nan"))}, r"`area_range` must be"),
        ({"thresholds": ()}, r"`threshold` must hold"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MaskAveragePrecision(**kwargs)


def test_missing_classes_and_scores_are_refused():
    labels = np.array([[1, 0]])
    truth, pred = GroundTruth(labels, [1]), Detections(labels, [0.5], [1])
    with pytest.raises(ValueError, match=r"`classes` of the true masks must be given"):
        MaskAveragePrecision().update(labels, pred)
    with pytest.raises(ValueError, match=r"`classes` of the predictions must be given"):
        MaskAveragePrecision().update(truth, Detections(labels, [0.5]))
    with pytest.raises(ValueError, match=r"^Image 0: `scores` of the predictions must be given"):
        mask_average_precision([truth], [Detections(labels, classes=[1])])
