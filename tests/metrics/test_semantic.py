import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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


@pytest.mark.parametrize(
    ("true", "pred", "classes", "message"),
    [
        ([[[0, 4]]], [[[0, 1]]], 4, "^Image 0: `truths`.*label of 4"),
        ([[[0, 1]]], [[[0]]], 4, r"^Image 0: .* must have the same shape.*\(1, 2\) and \(1, 1\)"),
        ([[[0.5]]], [[[0]]], 4, r"^Image 0: `truths` must hold integer class maps.*float64"),
        ([[[0]]], [[0]], 4, r"^Image 0: `predictions` must hold integer class maps.*\(1,\)"),
        ([[[0]]], [], 4, "equally many"),
        ([[[0]]], [[[0]]], 0, "`num_classes`.*0"),
        ([[[0]]], [[[0]]], True, r"`num_classes` must be"),
    ],
)
def test_bad_maps_are_refused(true, pred, classes, message):
    with pytest.raises(ValueError, match=message):
        class_iou(true, pred, classes)


def maps(seed=0, classes=6):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, (4, 5, 7))
    pred = np.where(rng.random(true.shape) < 0.6, true, rng.integers(0, classes, true.shape))
    return true, pred


@pytest.mark.parametrize("ignore_label", [None, 3, 255])
def test_equals_the_offline_figure_over_several_updates(ignore_label):
    true, pred = maps()
    if ignore_label:
        true[:, 0] = ignore_label
    metric = SemanticMeanIoU(8, ignore_label)
    metric.update_state(true[:1], pred[:1])
    metric.update_state(true[1:], pred[1:])
    expected = class_iou(true, pred, 8, ignore_label)
    assert set(expected) <= set(range(6))
    assert metric.class_iou() == pytest.approx(expected)
    assert float(metric.result()) == pytest.approx(np.mean(list(expected.values())), rel=1e-6)


def test_equals_keras_where_all_labels_are_classes():
    true, pred = maps(1)
    reference = keras.metrics.MeanIoU(6, ignore_class=2)
    metric = SemanticMeanIoU(6, 2)
    for each in (reference, metric):
        each.update_state(true, pred)
    assert float(metric.result()) == pytest.approx(float(reference.result()), abs=1e-6)


def test_labels_that_are_no_class():
    metric = SemanticMeanIoU(2)
    # The prediction 2 and 9 are misses; the true labels 2, 7 and -1 are void.
    metric.update_state([[[0, 0, 1, 1, 2, 7, -1]]], [[[0, 2, 1, 9, 0, 1, 1]]])
    assert metric.class_iou() == {0: 0.5, 1: 0.5}


def test_one_without_any_known_pixel():
    metric = SemanticMeanIoU(3, ignore_label=255)
    assert float(metric.result()) == 1.0
    metric.update_state(np.full((1, 2, 2), 255), np.zeros((1, 2, 2), int))
    assert float(metric.result()) == 1.0
    assert metric.class_iou() == {}
    metric.update_state(np.zeros((1, 2, 2), int), np.ones((1, 2, 2), int))
    assert float(metric.result()) == 0.0
    metric.reset_state()
    assert float(metric.result()) == 1.0


def test_counts_beyond_32_bits():
    metric = SemanticMeanIoU(2)
    for _ in range(2):
        metric.total_cm.assign_add(np.array([[2**31 - 1, 0, 0], [0, 2**30, 2**30], [0] * 3]))
    assert metric.class_iou() == pytest.approx({0: 1.0, 1: 0.5})


@pytest.mark.parametrize("jit_compile", [False, True])
def test_scores_in_a_compiled_model_with_mixed_precision(jit_compile):
    true, pred = maps(2, classes=3)
    true[0] = 255
    scores = np.eye(3, dtype="float32")[pred]
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((None, None, 3))
        model = keras.Model(inputs, keras.layers.Identity()(inputs))
        metric = SemanticMeanIoU(3, 255, sparse_y_pred=False)
        loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
        model.compile(loss=loss, metrics=[metric], jit_compile=jit_compile)
        logs = model.evaluate(scores, true, batch_size=3, verbose=0, return_dict=True)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    expected = class_iou(true, pred, 3, 255)
    assert logs[metric.name] == pytest.approx(np.mean(list(expected.values())), rel=1e-6)


def test_dynamic_shapes():
    metric = SemanticMeanIoU(6)
    spec = tf.TensorSpec((None, None, None), tf.uint8)

    @tf.function(input_signature=[spec, spec])
    def update(true, pred):
        metric.update_state(true, pred)

    true, pred = maps(3)
    update(true, pred)
    update(true[:1, :2], pred[:1, :2])
    expected = class_iou([*true, true[0, :2]], [*pred, pred[0, :2]], 6)
    assert metric.class_iou() == pytest.approx(expected)


def test_config_round_trip():
    metric = SemanticMeanIoU(21, 255, sparse_y_pred=False, name="miou")
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(copy) is SemanticMeanIoU
    assert copy.get_config() == metric.get_config()
    assert (copy.true_classes, copy.ignore_label, copy.sparse_y_pred) == (21, 255, False)
    assert copy.total_cm.shape == metric.total_cm.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "`num_classes`.*0"),
        ((2.0,), r"`num_classes` must be"),
        ((3, 0.5), r"`ignore_label` must be"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SemanticMeanIoU(*arguments)


@pytest.mark.parametrize(
    ("true", "pred", "sparse", "message"),
    [
        (np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int), True, r"`y_pred` must have the shape"),
        (np.zeros((1, 2, 2), int), np.zeros((1, 2, 2, 3)), True, r"`y_pred` must have the shape"),
        (
            np.zeros((1, 2, 2), int),
            np.zeros((1, 2, 2, 5)),
            False,
            r"\(1, 2, 2, 3\).*\(1, 2, 2, 5\)",
        ),
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2), int), True, r"`y_true` must hold integers"),
        (np.zeros((1, 2, 2), int), np.zeros((1, 2, 2)), True, r"`y_pred` must hold integers"),
    ],
)
def test_bad_batches_are_refused(true, pred, sparse, message):
    with pytest.raises(ValueError, match=message):
        SemanticMeanIoU(3, sparse_y_pred=sparse).update_state(true, pred)
