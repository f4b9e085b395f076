import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from keras_rpe.metrics import SemanticMeanIoU, class_iou


def reference(true, pred, num_classes, ignore_label):
    """IoU of each class that occurs, by sets of pixels."""
    known = true != ignore_label
    values = {}
    for label in range(num_classes):
        a, b = (true == label) & known, (pred == label) & known
        if (a | b).any():
            values[label] = (a & b).sum() / (a | b).sum()
    return values


@settings(max_examples=60, deadline=None)
@given(
    maps=hnp.arrays(np.int64, (2, 2, 3, 4), elements=st.integers(0, 4)),
    ignore_label=st.sampled_from([None, 2, 4]),
)
def test_equals_sets_of_pixels(maps, ignore_label):
    true, pred = maps
    found = class_iou(true, pred, 5, ignore_label)
    assert found == pytest.approx(reference(true, pred, 5, ignore_label))


def test_images_of_several_sizes_types_and_labels_that_are_no_class():
    true = [np.array([[0, 1, 1, 255]], np.uint8), np.array([[2], [2]], np.int32)]
    pred = [np.array([[0, 1, 255, 1]], np.uint8), np.array([[-1], [2]])]
    assert class_iou(iter(true), iter(pred), 4, 255) == {0: 1.0, 1: 0.5, 2: 0.5}


def test_photographs_equal_the_streaming_metric(data_root):
    folder = data_root / "coco_ccby" / "semantic"
    if not folder.is_dir():
        pytest.skip(f"COCO photographs not found in {folder}")
    true = [np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))[::3]]
    true.append(np.array(Image.open(folder / "000000000257.png")))
    pred = [np.where(t == 255, 3, np.roll(t, 5, axis=0)) for t in true]
    found = class_iou(true, pred, 81, ignore_label=255)
    metric = SemanticMeanIoU(81, ignore_label=255)
    for t, p in zip(true, pred):
        metric.update_state(t[None], p[None])
    assert metric.class_iou() == pytest.approx(found, rel=1e-6)
    assert 0.5 < np.mean(list(found.values())) < 0.99
    assert float(metric.result()) == pytest.approx(np.mean(list(found.values())), rel=1e-6)


@pytest.mark.parametrize(
    ("true", "pred", "classes", "message"),
    [
        ([[[0, 4]]], [[[0, 1]]], 4, r"^Image 0: `truths` must hold labels from 0 to 3.*label of 4"),
        ([[[0, 1]]], [[[0]]], 4, r"^Image 0: .* must have the same shape.*\(1, 2\) and \(1, 1\)"),
        ([[[0.5]]], [[[0]]], 4, r"^Image 0: `truths` must hold integer class maps.*float64"),
        ([[[0]]], [[0]], 4, r"^Image 0: `predictions` must hold integer class maps.*\(1,\)"),
        ([[[0]]], [], 4, r"equally many images"),
        ([[[0]]], [[[0]]], 0, r"`num_classes` must be an integer from 1\. .*num_classes=0"),
        ([[[0]]], [[[0]]], True, r"`num_classes` must be"),
    ],
)
def test_bad_input_is_refused(true, pred, classes, message):
    with pytest.raises(ValueError, match=message):
        class_iou(true, pred, classes)
