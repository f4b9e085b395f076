import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_images import coco_photographs, stack

from keras_rpe.metrics import (
    Detections,
    GroundTruth,
    InstancePanopticQuality,
    PanopticQuality,
)


def random_segments(seed, number=3):
    """Panoptic maps where 0 is void, and predictions with holes and wrong classes."""
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for _ in range(number):
        shape = tuple(rng.integers(2, 5, 2))
        labels = np.kron(rng.integers(0, 6, shape), np.ones((2, 3), int))
        pred = np.where(rng.random(labels.shape) < 0.75, labels, rng.integers(0, 6, labels.shape))
        classes = rng.integers(1, 5, 5)
        swapped = np.where(rng.random(5) < 0.3, rng.integers(1, 5, 5), classes)
        truths.append(GroundTruth(labels, classes, crowd=rng.random(5) < 0.3, ignore_label=0))
        predictions.append(Detections(pred, classes=swapped))
    return truths, predictions


def reference(truths, predictions):
    """The figures of each class, counted pixel by pixel."""
    # Sums of IoU, TP, FP and FN.
    counts = {}
    for true, pred in zip(truths, predictions):
        pixels = list(zip(true.masks.ravel().tolist(), pred.masks.ravel().tolist()))
        true_ids = {t for t, _ in pixels} - {true.ignore_label, 0}
        pred_ids = {p for _, p in pixels} - {0}
        class_of = dict(zip(true.ids.tolist(), true.classes.tolist()))
        class_of_pred = dict(zip(pred.ids.tolist(), pred.classes.tolist()))
        crowd = dict(zip(true.ids.tolist(), true.crowd.tolist()))
        void = {true.ignore_label}
        matched_true, matched_pred = set(), set()
        for t in true_ids:
            for p in pred_ids:
                if crowd[t] or class_of[t] != class_of_pred[p]:
                    continue
                both = sum(pair == (t, p) for pair in pixels)
                either = sum((a == t or b == p) and a not in void for a, b in pixels)
                if both / either > 0.5:
                    entry = counts.setdefault(class_of[t], [0, 0, 0, 0])
                    entry[0] += both / either
                    entry[1] += 1
                    matched_true.add(t)
                    matched_pred.add(p)
        for p in pred_ids - matched_pred:
            excused = sum(
                b == p and (a in void or (crowd.get(a, False) and class_of[a] == class_of_pred[p]))
                for a, b in pixels
            )
            if excused / sum(b == p for _, b in pixels) <= 0.5:
                counts.setdefault(class_of_pred[p], [0, 0, 0, 0])[2] += 1
        for t in true_ids - matched_true:
            if not crowd[t]:
                counts.setdefault(class_of[t], [0, 0, 0, 0])[3] += 1
    figures = {}
    for label, (iou, tp, fp, fn) in sorted(counts.items()):
        number = tp + fp / 2 + fn / 2
        figures[label] = {"PQ": iou / number, "SQ": iou / tp if tp else 0.0, "RQ": tp / number}
    return figures


def updated(quality, truths, predictions):
    for true, pred in zip(truths, predictions):
        quality.update_state(true, pred)
    return quality


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_equals_a_count_pixel_by_pixel(seed):
    truths, predictions = random_segments(seed)
    quality = updated(PanopticQuality(things=(1, 3)), truths, predictions)
    expected = reference(truths, predictions)
    found = quality.class_results()
    assert list(found) == list(expected)
    for label, values in expected.items():
        assert found[label] == pytest.approx(values)
    result = quality.result()
    for suffix, labels in (("", {1, 2, 3, 4}), ("_th", {1, 3}), ("_st", {2, 4})):
        for name in ("PQ", "SQ", "RQ"):
            values = [expected[label][name] for label in labels & set(expected)]
            assert result[name + suffix] == pytest.approx(np.mean(values) if values else 1.0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_perfect_segments_score_one_and_stacks_serve(seed):
    truths, predictions = random_segments(seed)
    perfect = [Detections(t.masks, classes=t.classes) for t in truths]
    assert set(updated(PanopticQuality(), truths, perfect).result().values()) == {1.0}
    stacked = [GroundTruth(stack(t), t.classes, t.crowd, void=t.void) for t in truths]
    found = [Detections(stack(p), classes=p.classes) for p in predictions]
    assert updated(PanopticQuality(), stacked, found).result() == pytest.approx(
        updated(PanopticQuality(), truths, predictions).result()
    )


def test_segments_mostly_in_void_are_no_false_positives():
    truth = GroundTruth(np.array([[1, 1, 1, 255, 255, 0, 0]]), [1], ignore_label=255)

    def wrong(pixels):
        pred = np.array([[1, 1, 1, 0, 0, 0, 0]])
        pred[0, pixels] = 2
        found = Detections(pred, classes=[1, 1])
        return updated(PanopticQuality(), [truth], [found]).result()["RQ"]

    assert wrong([3, 4, 5]) == 1.0
    assert wrong([4, 5]) == pytest.approx(1 / 1.5)  # exactly half


def test_one_class_without_void_is_the_quality_of_instances(data_root):
    truths, _ = coco_photographs(data_root)
    quality, instances = PanopticQuality(), InstancePanopticQuality(0.501)
    for true in truths[:3]:
        labels = np.where(true.masks == 255, 0, true.masks)
        pred = np.roll(labels, 4, axis=1)
        quality.update_state(
            GroundTruth(labels, (labels > 0) * 1), Detections(pred, classes=(pred > 0) * 1)
        )
        instances.update_state(labels[None], pred[None])
    assert 0.3 < quality.result()["PQ"] < 0.99
    assert quality.result()["PQ"] == pytest.approx(float(instances.result()), abs=1e-5)


def test_nothing_counts():
    quality = PanopticQuality(things=[1])
    assert set(quality.result().values()) == {1.0}
    quality.update_state(GroundTruth(np.zeros((1, 2), int), []), Detections([[1, 0]], classes=[2]))
    assert quality.result()["PQ"] == 0.0
    assert (quality.result()["PQ_th"], quality.result()["PQ_st"]) == (1.0, 0.0)
    quality.reset_state()
    assert quality.class_results() == {}


def test_bad_input_is_refused():
    labels = np.array([[1, 0]])
    truth, pred = GroundTruth(labels, [1]), Detections(labels, classes=[1])
    twice = np.ones((2, 1, 2), bool)
    for arguments, message in (
        ((labels, pred), r"`classes` of the true masks must be given"),
        ((truth, labels), r"`classes` of the predictions must be given"),
        ((GroundTruth(labels, [1], ignored=[True]), pred), r"`ignored` must be False.*: 1 that"),
        ((GroundTruth(twice, [1, 1]), pred), r"segments of `true` must not overlap"),
        ((truth, Detections(twice, classes=[1, 1])), r"segments of `pred` must not overlap"),
        ((truth, Detections(labels.T, classes=[1])), r"same height and width"),
    ):
        with pytest.raises(ValueError, match=message):
            PanopticQuality().update_state(*arguments)
    for things in ([0], ["cat"]):
        with pytest.raises(ValueError, match="`things` must"):
            PanopticQuality(things)
