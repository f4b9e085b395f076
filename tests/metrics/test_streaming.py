import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_rpe.metrics import (
    InstanceAveragePrecision,
    InstancePanopticQuality,
    SemanticMeanIoU,
    class_iou,
    matching,
    matching_dataset,
)
from keras_rpe.metrics.streaming import count_matches

THRESHOLDS = (0.5, 0.55, 0.6, 0.75, 1.0)
DTYPES = (np.uint8, np.int32, np.int64, np.uint32, np.uint64)


def expect_offline(counts, true, pred, threshold):
    m = matching(true, pred, threshold)
    assert tuple(int(count) for count in counts[:3]) == (m.tp, m.fp, m.fn)
    assert float(counts[3]) == pytest.approx(m.sum_iou, rel=1e-5)


def random_pair(seed, shape=(12, 13), ids=12, keep=0.8):
    """A blocky map and a copy with holes, cuts and merges, so that many IoU lie near 0.5."""
    rng = np.random.default_rng(seed)
    true = np.kron(rng.integers(0, ids, (shape[0] // 2, shape[1])), np.ones((2, 1), int))
    pred = np.where(rng.random(true.shape) < keep, true, rng.integers(0, ids, true.shape))
    return true, pred


@settings(max_examples=60, deadline=None)
@given(
    maps=hnp.arrays(np.int32, (2, 3, 5), elements=st.integers(0, 5)),
    threshold=st.sampled_from(THRESHOLDS),
)
# Halves of an instance and two that are merged: three of each map have a partner of IoU 0.5, and
# yet there are only two one-to-one pairs.
@example(
    maps=np.array([[[1, 1, 1, 1, 0, 2, 2, 3, 3]], [[1, 1, 2, 2, 0, 3, 3, 3, 3]]]), threshold=0.5
)
def test_equals_the_offline_matching(maps, threshold):
    expect_offline(count_matches(maps[0], maps[1], threshold), *maps, threshold)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_integer_type_and_its_largest_ids(dtype):
    top = min(np.iinfo(dtype).max, np.iinfo(np.int64).max)
    ids = np.array([0, 1, 7, top - 1, top], dtype=dtype)
    true, pred = (ids[labels % 5] for labels in random_pair(0))
    expect_offline(count_matches(true, pred, 0.5), true, pred, 0.5)


def test_instances_beyond_the_largest_number_count_as_not_matched():
    labels = np.arange(1, 11).reshape(2, 5)
    for limit in (1, 4, 9, 10):
        counts = [float(one) for one in count_matches(labels, labels, max_instances=limit)]
        assert counts == [limit, 10 - limit, 10 - limit, limit]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_updates_in_a_compiled_graph_equal_the_data_set(jit_compile):
    metric = InstanceAveragePrecision(max_instances=16)
    spec = tf.TensorSpec((None, None, None), tf.int32)

    @tf.function(jit_compile=jit_compile, input_signature=[spec, spec])
    def update(y_true, y_pred):
        metric.update_state(y_true, y_pred)

    images = []
    for batch, shape in ((3, (12, 13)), (1, (6, 20)), (0, (4, 4))):
        pairs = [random_pair(seed, shape) for seed in range(batch)]
        stacked = np.array(pairs, np.int32).reshape(batch, 2, *shape)
        update(stacked[:, 0], stacked[:, 1])
        images += pairs
    m = matching_dataset([t for t, _ in images], [p for _, p in images])
    assert 0 < m.tp < m.n_true
    assert (float(metric.tp), float(metric.fp), float(metric.fn)) == (m.tp, m.fp, m.fn)
    assert float(metric.sum_iou) == pytest.approx(m.sum_iou, rel=1e-5)
    metric.reset_state()
    assert [float(v) for v in metric.variables] == [0.0] * 4
    true, pred = np.array([random_pair(seed) for seed in range(2)]).swapaxes(0, 1)
    metric.update_state(true, pred, sample_weight=[2, 0])
    assert float(metric.tp) == 2 * matching(true[0], pred[0]).tp


Z = np.zeros((1, 2, 2), int)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: InstanceAveragePrecision(threshold=0.49), "`threshold`.*0.49"),
        (lambda: InstanceAveragePrecision(max_instances=10**6), "`max_instances`.*1000000"),
        (lambda: InstanceAveragePrecision(ignore_label=0.5), "`ignore_label`.*0.5"),
        (lambda: InstanceAveragePrecision().update_state(Z * 1.0, Z), "`y_true`.*integers"),
        (lambda: InstanceAveragePrecision().update_state(Z[0], Z[0]), r"`y_true`.*\(2, 2\)"),
        (lambda: InstanceAveragePrecision().update_state(Z, Z[..., :1]), "`y_pred`.*shape"),
        (lambda: InstanceAveragePrecision().update_state(Z, Z, [1, 2]), "`sample_weight`"),
        (lambda: SemanticMeanIoU(0), "`num_classes`.*0"),
        (lambda: SemanticMeanIoU(3).update_state(Z, Z * 1.0), "`y_pred`.*integers"),
        (
            lambda: SemanticMeanIoU(3, sparse_y_pred=False).update_state(Z, np.zeros((1, 2, 2, 5))),
            r"\(1, 2, 2, 3\).*\(1, 2, 2, 5\)",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


METRICS = {
    InstanceAveragePrecision: "average_precision",
    InstancePanopticQuality: "panoptic_quality",
}


@pytest.mark.parametrize("threshold", [0.5, 0.7])
@pytest.mark.parametrize("metric_class", METRICS)
def test_figures_equal_the_pooled_ones_over_several_updates(metric_class, threshold):
    rng = np.random.default_rng(0)
    true = rng.integers(-1, 20, (6, 5, 9))
    pred = np.where(rng.random(true.shape) < 0.25, 0, true) * 1000
    metric = metric_class(threshold, 32, 4, name="figure")
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(copy) is metric_class
    assert copy.get_config() == metric.get_config()
    assert metric_class().name == "instance_" + METRICS[metric_class]
    assert float(metric.result()) == 1.0
    for start in (0, 2, 4):
        metric.update_state(true[start : start + 2], pred[start : start + 2])
    # Negative labels are background.
    pooled = matching_dataset(*np.maximum([true, pred], 0), threshold, ignore_label=4)
    assert 0 < getattr(pooled, METRICS[metric_class]) < 1
    assert float(metric.result()) == pytest.approx(getattr(pooled, METRICS[metric_class]), rel=1e-5)


def iou_of_sets(true, pred, num_classes, ignore_label):
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
    assert found == pytest.approx(iou_of_sets(true, pred, 5, ignore_label))


@pytest.mark.parametrize(
    ("true", "pred", "classes", "message"),
    [
        ([[[0, 4]]], [[[0, 1]]], 4, "^Image 0: `truths`.*label of 4"),
        ([[[0, 1]]], [[[0]]], 4, r"^Image 0: `predictions`.*\(1, 2\).*\(1, 1\)"),
        ([[[0.5]]], [[[0]]], 4, r"^Image 0: `truths` must hold integers.*float64"),
        ([[[0]]], [[0]], 4, r"^Image 0: `predictions` must.*\(1,\)"),
        ([[[0]]], [], 4, "equally many"),
        ([[[0]]], [[[0]]], 0, "`num_classes`.*0"),
    ],
)
def test_bad_images_are_refused(true, pred, classes, message):
    with pytest.raises(ValueError, match=message):
        class_iou(true, pred, classes)


def class_maps(seed=0, classes=6):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, (4, 5, 7))
    pred = np.where(rng.random(true.shape) < 0.6, true, rng.integers(0, classes, true.shape))
    return true, pred


@pytest.mark.parametrize("ignore_label", [None, 3, 255])
def test_equals_the_offline_figure_over_several_updates(ignore_label):
    true, pred = class_maps()
    if ignore_label:
        true[:, 0] = ignore_label
    metric = SemanticMeanIoU(8, ignore_label)
    metric.update_state(true[:1], pred[:1])
    metric.update_state(true[1:], pred[1:])
    expected = class_iou(true, pred, 8, ignore_label)
    assert set(expected) <= set(range(6))
    assert metric.class_iou() == pytest.approx(expected)
    assert float(metric.result()) == pytest.approx(np.mean(list(expected.values())), rel=1e-6)


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


def test_labels_that_are_no_class_and_counts_beyond_32_bits():
    metric = SemanticMeanIoU(2)
    # The prediction 2 and 9 are misses; the true labels 2, 7 and -1 are void.
    metric.update_state([[[0, 0, 1, 1, 2, 7, -1]]], [[[0, 2, 1, 9, 0, 1, 1]]])
    assert metric.class_iou() == {0: 0.5, 1: 0.5}
    metric.reset_state()
    for _ in range(2):
        metric.total_cm.assign_add(np.array([[2**31 - 1, 0, 0], [0, 2**30, 2**30], [0] * 3]))
    assert metric.class_iou() == pytest.approx({0: 1.0, 1: 0.5})


def evaluated(metric, loss, inputs, x, y):
    """The figure of a compiled model that gives its input, in mixed precision."""
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = keras.Model(inputs, keras.layers.Identity()(inputs))
        model.compile(loss=loss, metrics=[metric], jit_compile=True)
        return model.evaluate(x, y, batch_size=3, verbose=0, return_dict=True)[metric.name]
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def test_compiled_models_with_mixed_precision():
    maps = np.array([random_pair(seed, (10, 9)) for seed in range(4)], np.int32)
    found = evaluated(
        InstanceAveragePrecision(threshold=0.6),
        lambda y, x: keras.ops.cast(y - x, "float32"),  # Keras evaluates no model without a loss.
        keras.Input((None, None), dtype="int32"),
        maps[:, 1],
        maps[:, 0],
    )
    assert 0 < found < 1
    assert found == pytest.approx(matching_dataset(*maps.swapaxes(0, 1), 0.6).average_precision)
    true, pred = class_maps(2, classes=3)
    true[0] = 255
    metric = SemanticMeanIoU(3, 255, sparse_y_pred=False)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    scores = np.eye(3, dtype="float32")[pred]
    expected = np.mean(list(class_iou(true, pred, 3, 255).values()))
    found = evaluated(metric, loss, keras.Input((None, None, 3)), scores, true)
    assert found == pytest.approx(expected, rel=1e-6)
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(copy) is SemanticMeanIoU
    assert copy.get_config() == metric.get_config()
