import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_images import coco_evaluation, coco_photographs, random_images, stack

from keras_rpe.metrics import (
    AverageRecall,
    Detections,
    GroundTruth,
    MaskAveragePrecision,
)
from keras_rpe.metrics.detection import area_under_curve, precision_at_recalls
from keras_rpe.models import Instances


def updated(metric, truths, predictions):
    for true, pred in zip(truths, predictions):
        metric.update_state(true, pred)
    return metric


def result(metric, true, pred):
    return updated(metric, [true], [pred]).result()


RIGHT = np.array([1, 0, 0, 1], bool)


def test_areas_by_hand():
    # Precision 1 up to a recall of 1/4, then 1/2 up to 2/4.
    assert area_under_curve(RIGHT, ~RIGHT, 4) == pytest.approx(0.25 * 1 + 0.25 * 0.5)
    assert precision_at_recalls(RIGHT, ~RIGHT, 4) == pytest.approx((26 * 1 + 25 * 0.5) / 101)


def expect_recall(truths, predictions, numbers):
    recall = updated(AverageRecall(numbers), truths, predictions)
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


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ignored=st.booleans())
def test_recall_equals_pycocotools(seed, ignored):
    expect_recall(*random_images(seed, ignored=ignored), (1, 3, 100))


def test_recall_equals_pycocotools_on_photographs(data_root):
    figures = expect_recall(*coco_photographs(data_root), (1, 10, 60, 100))
    assert 0.02 < figures["AR@1"] < figures["AR@10"] < figures["AR@60"] < 0.95
    assert figures["AR@60"] == figures["AR@100"] < figures["AR50@100"] < 1


def test_excluded_void_leaves_the_masks():
    labels = np.array([[1, 1, 255, 255, 0, 2]])
    truth = GroundTruth(labels, ignore_label=255)
    pred = np.array([[[1, 1, 1, 1, 0, 0]], [[0, 0, 1, 1, 0, 0]]], bool)
    without = AverageRecall((2,), exclude_void=True)
    assert result(without, truth, pred) == {"AR@2": 0.5, "AR50@2": 0.5}
    # IoU 1/2 with mask 1.
    assert result(AverageRecall((2,)), truth, pred) == {"AR@2": pytest.approx(0.05), "AR50@2": 0.5}
    # A mask without another pixel than void ones is not asked for.
    hidden = GroundTruth(np.array([[[True, False]]]), void=np.array([[True, False]]))
    assert result(AverageRecall(exclude_void=True), hidden, np.zeros((1, 2), int))["AR@1"] == 1.0


def test_maps_stacks_and_instances_are_the_same():
    labels = np.array([[3, 3, 0, 9], [3, 0, 0, 9]])
    pred = np.array([[2, 2, 0, 1], [2, 2, 0, 0]], np.int32)
    scores = np.array([0.2, 0.7], np.float32)
    instances = Instances(pred, scores, np.zeros((2, 4), int), np.ones(2, int))
    stacked = Detections(pred == np.array([1, 2])[:, None, None], scores)
    recall = AverageRecall((1, 2))

    def anew(true, pred):
        recall.reset_state()
        return result(recall, true, pred)

    expected = anew(labels, Detections(pred, scores))
    assert expected["AR50@1"] == 0.5
    assert expected["AR50@2"] == 1.0
    assert anew(labels, instances) == expected
    true = labels == np.array([3, 9])[:, None, None]
    assert anew(true, stacked) == expected
    # Masks only come in the order of their rank.
    assert anew(true, stacked.masks[::-1]) == expected


def expect_precision(truths, predictions, **kwargs):
    found = updated(MaskAveragePrecision(**kwargs), truths, predictions)
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


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    crowd=st.booleans(),
    ignored=st.booleans(),
    limit=st.sampled_from([1, 2, 100]),
)
def test_equals_pycocotools(seed, crowd, ignored, limit):
    truths, predictions = random_images(seed, crowd=crowd, ignored=ignored)
    expect_precision(truths, predictions, max_detections=limit)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), area=st.sampled_from([(0, 12), (6, 20), (12, 1000)]))
def test_equals_pycocotools_in_a_range_of_areas(seed, area):
    expect_precision(*random_images(seed, classes=2), area_range=area)


def test_of_equal_overlaps_the_later_mask_is_taken_as_in_pycocotools():
    truth = GroundTruth(np.array([[1, 1, 2, 2]]), [1, 1])
    for last in ([1, 1, 0, 0], [0, 0, 1, 1]):
        masks = np.array([[[1, 1, 1, 1]], [last]], bool)
        figures = expect_precision([truth], [Detections(masks, [0.9, 0.8], [1, 1])])
        # The first prediction overlaps both masks by half and takes the second one.
        assert (figures["AP50"] == 1.0) is (last[0] == 1)


def test_equals_pycocotools_on_photographs(data_root):
    truths, predictions = coco_photographs(data_root)
    figures = expect_precision(truths, predictions)
    assert 0.2 < figures["AP"] < figures["AP75"] + 0.1 < figures["AP50"] < 0.99
    small, large = (
        expect_precision(truths, predictions, area_range=a) for a in ((0, 1024), (9216, 1e9))
    )
    assert small["AP"] < large["AP"]


def voc_reference(truths, predictions, threshold):
    """mAP^r in plain loops: void pixels cut away, greedy matching, area under the envelope."""
    results = []
    for label in sorted({int(c) for t in truths for c in t.classes}):
        ranking, number = [], 0
        for true, pred in zip(truths, predictions):
            void = np.zeros(true.shape, bool) if true.void is None else true.void
            gt = []
            for mask, c, crowd, ignored in zip(stack(true), true.classes, true.crowd, true.ignored):
                if c == label:
                    gone = mask.any() and not (mask & ~void).any()
                    gt.append((mask & ~void, crowd, bool(crowd or ignored or gone)))
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


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ignored=st.booleans())
def test_voc_equals_plain_loops(seed, ignored):
    truths, predictions = random_images(seed, ignored=ignored)
    found = updated(MaskAveragePrecision("voc"), truths, predictions)
    for threshold, name in ((0.5, "AP50"), (0.7, "AP70")):
        expected = voc_reference(truths, predictions, threshold)
        by_class = [values[name] for values in found.class_results().values()]
        np.testing.assert_allclose(by_class, expected, atol=1e-9)
        if expected:
            assert found.result()[name] == pytest.approx(np.mean(expected), abs=1e-9)


def test_duplicates_are_wrong_and_a_crowd_takes_all():
    labels = np.array([[1, 1, 0, 2, 2, 2]])
    masks = np.array([[[1, 1, 0, 0, 0, 0]]] * 2 + [[[0, 0, 0, 1, 0, 0]]] * 3, bool)
    pred = Detections(masks, np.arange(5, 0, -1), np.ones(5, int))
    crowd = GroundTruth(labels, [1, 1], crowd=[False, True])
    assert result(MaskAveragePrecision(), crowd, pred)["AP"] == 1.0  # the duplicate comes after
    worse = Detections(masks[[2, 0, 1]], [3, 1, 2], [1, 1, 1])
    assert result(MaskAveragePrecision("voc"), crowd, worse)["AP"] == 1.0
    assert result(MaskAveragePrecision("voc"), GroundTruth(labels, [1, 1]), worse)["AP"] == 0.25


def test_a_small_part_of_void_excuses_a_coco_prediction():
    void = np.array([[False, True, True, True]])
    truth = GroundTruth(np.array([[1, 0, 0, 0]]), [1], void=void)
    masks = np.array([[[0, 0, 1, 1]], [[1, 0, 0, 0]]], bool)
    pred = Detections(masks, [0.9, 0.8], [1, 1])
    assert result(MaskAveragePrecision(), truth, pred)["AP"] == 1.0
    assert result(MaskAveragePrecision("voc"), truth, pred)["AP"] == 1.0
    without = GroundTruth(truth.masks, [1])
    assert result(MaskAveragePrecision("voc"), without, pred)["AP"] == 0.5


def test_interval_of_draws():
    """Against draws that are made by hand of images that are either right or wrong."""
    precision = MaskAveragePrecision("voc", (0.5,))
    labels = np.array([[1, 1, 0, 0]])
    outcomes = [True, False, True, True, False, True, True, True]
    for right in outcomes:
        found = labels if right else labels[:, ::-1]
        precision.update_state(GroundTruth(labels, [4]), Detections(found, [0.5], [4]))
    rng = np.random.default_rng(3)
    values = []
    for _ in range(200):
        times = rng.multinomial(8, np.full(8, 1 / 8))
        drawn = MaskAveragePrecision("voc", (0.5,))
        for right, count in zip(outcomes, times):
            for _ in range(count):
                found = labels if right else labels[:, ::-1]
                drawn.update_state(GroundTruth(labels, [4]), Detections(found, [0.5], [4]))
        values.append(drawn.result()["AP50"])
    found = precision.interval(0.8, 200, seed=3)
    assert found["AP50"] == pytest.approx(np.quantile(values, [0.1, 0.9]))
    assert found["AP"] == found["AP50"]
    assert found["AP50"][0] < precision.result()["AP50"] < found["AP50"][1]
    with pytest.raises(ValueError, match="needs images with true masks"):
        MaskAveragePrecision().interval()


def test_nothing_true():
    precision = MaskAveragePrecision("voc")
    nothing = {"AP": 1.0, "AP50": 1.0, "AP70": 1.0}
    assert precision.result() == nothing
    empty = GroundTruth(np.zeros((2, 2), int), np.zeros((2, 2), int))
    precision.update_state(empty, Detections(np.zeros((0, 2, 2), bool), [], []))
    assert precision.result() == nothing
    assert precision.class_results() == {}
    precision.update_state(empty, Detections(np.ones((1, 2, 2), bool), [1], [1]))
    assert set(precision.result().values()) == {0.0}
    precision.reset_state()
    assert precision.result() == nothing


@pytest.mark.parametrize(
    ("metric", "name", "value"),
    [(AverageRecall, "max_proposals", value) for value in ((), (10, 1), 10)]
    + [(AverageRecall, "thresholds", (0.5, 1.2))]
    + [(MaskAveragePrecision, "protocol", "lvis"), (MaskAveragePrecision, "thresholds", ())]
    + [(MaskAveragePrecision, "max_detections", 0)]
    + [(MaskAveragePrecision, "area_range", value) for value in ((3, 1), 5)],
)
def test_bad_arguments_are_refused(metric, name, value):
    with pytest.raises(ValueError, match=f"`{name.replace('thresholds', 'threshold')}` must"):
        metric(**{name: value})


def test_bad_images_are_refused():
    labels = np.array([[1, 0]])
    truth, pred = GroundTruth(labels, [1]), Detections(labels, [0.5], [1])
    for true, found, message in (
        (labels, pred, "`classes` of the true masks"),
        (truth, Detections(labels, [0.5]), "`classes` of the predictions"),
        (truth, Detections(labels, classes=[1]), "`scores` of the predictions"),
        (truth, Detections(labels.T, [0.5], [1]), r"\(1, 2\) and \(2, 1\)"),
        (truth, labels * 1.0, "`masks`.*float64"),
    ):
        with pytest.raises(ValueError, match=message):
            MaskAveragePrecision().update_state(true, found)
