import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_rpe.metrics import average_precision, matching, matching_dataset

THRESHOLDS = (0.1, 0.25, 0.5, 0.6, 0.75, 1.0)

# Few ids on few pixels, so that ties and several candidates for one instance are frequent.
label_maps = st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.int32, shape, elements=st.integers(0, 4)),
        hnp.arrays(np.int32, shape, elements=st.integers(0, 4)),
    )
)


def loop_ious(true, pred):
    """IoU of all pairs of ids, pixel set by pixel set."""
    true_ids = [i for i in np.unique(true) if i != 0]
    pred_ids = [j for j in np.unique(pred) if j != 0]
    ious = np.zeros((len(true_ids), len(pred_ids)))
    for a, i in enumerate(true_ids):
        for b, j in enumerate(pred_ids):
            first = {tuple(p) for p in np.argwhere(true == i)}
            second = {tuple(p) for p in np.argwhere(pred == j)}
            ious[a, b] = len(first & second) / len(first | second)
    return ious


def loop_matching(ious, threshold):
    """Best (pairs, sum of IoU) over every one-to-one assignment."""
    if ious.shape[0] > ious.shape[1]:
        ious = ious.T
    n, m = ious.shape
    best = (0, 0.0)
    for columns in itertools.permutations(range(m), n):
        chosen = [ious[row, column] for row, column in enumerate(columns)]
        chosen = [iou for iou in chosen if iou >= threshold]
        best = max(best, (len(chosen), sum(chosen)))
    return best


@settings(max_examples=100, deadline=None)
@given(maps=label_maps)
def test_equals_the_best_of_all_assignments(maps):
    true, pred = maps
    ious = loop_ious(true, pred)
    for m in matching(true, pred, THRESHOLDS):
        pairs, sum_iou = loop_matching(ious, m.threshold)
        assert (m.tp, m.n_true, m.n_pred) == (pairs, *ious.shape)
        assert (m.fn, m.fp) == (m.n_true - m.tp, m.n_pred - m.tp)
        assert m.sum_iou == pytest.approx(sum_iou, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(maps=label_maps, seed=st.integers(0, 2**31))
def test_ids_and_their_order_do_not_matter(maps, seed):
    rng = np.random.default_rng(seed)
    renamed = []
    for labels in maps:
        ids = rng.choice(2**40, size=4, replace=False) + 1
        renamed.append(np.concatenate([[0], ids])[labels])
    assert matching(*renamed, THRESHOLDS) == matching(*maps, THRESHOLDS)


@settings(max_examples=30, deadline=None)
@given(maps=label_maps, void=st.integers(0, 4))
def test_ignored_pixels_leave_both_maps(maps, void):
    true, pred = maps
    kept = true != void
    expected = matching(true[kept][None], pred[kept][None], THRESHOLDS)
    assert matching(true, pred, THRESHOLDS, ignore_label=void) == expected


def test_hand_computed_example():
    true = np.array([[1, 1, 1, 1, 0, 0], [2, 2, 0, 0, 3, 3], [0, 0, 0, 0, 3, 3]])
    pred = np.array([[9, 9, 9, 0, 0, 5], [0, 0, 0, 0, 7, 7], [0, 0, 6, 6, 7, 0]])
    m = matching(true, pred, threshold=0.5)
    assert (m.tp, m.fp, m.fn, m.n_true, m.n_pred) == (2, 2, 1, 3, 4)
    assert m.sum_iou == 1.5
    assert m.precision == 0.5
    assert m.recall == pytest.approx(2 / 3)
    assert m.f1 == pytest.approx(4 / 7)
    assert m.average_precision == pytest.approx(0.4)
    assert m.mean_matched_iou == 0.75
    assert m.mean_true_iou == 0.5
    assert m.panoptic_quality == pytest.approx(1.5 / 3.5)
    assert matching(true, pred, threshold=0.76).tp == 0


def test_more_pairs_go_before_larger_iou():
    # The best pair (1, 1) of IoU 3/5 would leave instance 2 alone; (1, 2) and (2, 1) are two pairs.
    true = np.array([[1, 1, 1, 1, 2, 0]])
    pred = np.array([[2, 1, 1, 1, 1, 0]])
    assert matching(true, pred, threshold=0.6).tp == 1
    m = matching(true, pred, threshold=0.2)
    assert m.tp == 2
    assert m.sum_iou == pytest.approx(0.25 + 0.25)


def test_threshold_grids_made_by_arange_reach_exact_fractions():
    true = np.array([[1, 1, 1, 1, 1]])
    pred = np.array([[1, 1, 1, 0, 0]])
    grid = np.arange(0.5, 1.0, 0.05)[:4]
    assert grid[2] > 0.6
    assert [m.tp for m in matching(true, pred, grid)] == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("true", "pred", "score"),
    [
        (np.zeros((3, 4), int), np.zeros((3, 4), int), 1.0),
        (np.zeros((0, 4), int), np.zeros((0, 4), int), 1.0),
        ([[1, 2]], [[0, 0]], 0.0),
        ([[0, 0]], [[1, 2]], 0.0),
    ],
)
def test_figures_of_empty_maps(true, pred, score):
    m = matching(true, pred)
    figures = (m.precision, m.recall, m.f1, m.average_precision)
    assert (*figures, m.mean_matched_iou, m.mean_true_iou, m.panoptic_quality) == (score,) * 7


def test_huge_ids_and_thousands_of_instances_stay_cheap():
    ids = np.random.default_rng(0).choice(2**62, size=5000, replace=False) + 1
    labels = np.repeat(ids, 4).reshape(100, 200)
    started = time.perf_counter()
    assert matching(labels, labels[::-1, ::-1], threshold=0.9).tp == 5000
    assert time.perf_counter() - started < 2.0


def test_matchings_add_up_at_one_threshold_only():
    labels, empty = np.array([[1, 2]]), np.array([[1, 0]])
    total = matching(labels, labels) + matching(labels, empty)
    assert (total.tp, total.fp, total.fn, total.n_true, total.n_pred) == (3, 0, 1, 4, 3)
    with pytest.raises(ValueError, match="0.5 and 0.6"):
        matching(labels, labels, 0.5) + matching(labels, labels, 0.6)


def test_a_negative_label_may_be_void():
    m = matching([[-1, -1, 3]], [[5, 5, 5]], ignore_label=-1)
    assert (m.tp, m.sum_iou) == (1, 1.0)


@pytest.mark.parametrize(
    ("true", "pred", "options", "message"),
    [
        ([[1.0]], [[1]], {}, "`labels_true`.*float64"),
        ([[1, 2]], [[1]], {}, r"\(1, 2\) and \(1, 1\)"),
        ([[-1]], [[1]], {}, "`labels_true`.*-1"),
        ([[-1]], [[-1]], {"ignore_label": -1}, "`labels_pred`.*-1"),
        ([[1]], [[1]], {"ignore_label": 1.0}, "`ignore_label`.*1.0"),
        *(([[1]], [[1]], {"threshold": value}, "`threshold`") for value in (0, 1.01, np.nan, [])),
    ],
)
def test_bad_input_is_refused_in_one_sentence(true, pred, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        matching(true, pred, **options)
    assert "\n" not in str(caught.value)


def test_pools_the_counts_of_all_images():
    rng = np.random.default_rng(0)
    true = [rng.integers(0, 4, size) for size in ((6, 7), (5, 5), (1, 9), (8, 3))]
    pred = [np.where(rng.random(one.shape) < 0.2, 0, one) for one in true]
    for threshold in (0.5, 0.7):
        single = [matching(t, p, threshold) for t, p in zip(true, pred)]
        pooled = matching_dataset(iter(true), (one for one in pred), threshold)
        for field in ("tp", "fp", "fn", "n_true", "n_pred", "sum_iou"):
            assert getattr(pooled, field) == pytest.approx(sum(getattr(m, field) for m in single))
        assert pooled.threshold == threshold
        assert 0 < pooled.tp < pooled.n_true


def test_average_precision_pooled_and_by_image():
    true = [np.array([[1, 0, 2, 0, 3, 0]]), np.array([[1]])]
    pred = [np.array([[1, 0, 0, 0, 0, 0]]), np.array([[4]])]
    np.testing.assert_allclose(average_precision(true, pred, (0.5, 1.0)), [0.5, 0.5])
    by_image = average_precision(true, pred, (0.5, 1.0), by_image=True)
    np.testing.assert_allclose(by_image, [2 / 3, 2 / 3])
    assert average_precision(true, pred).shape == (5,)


@pytest.mark.parametrize("function", [matching_dataset, average_precision])
def test_bad_data_sets_are_refused(function):
    labels = np.array([[1]])
    with pytest.raises(ValueError, match=r"equally many.*only 1 in `labels_pred`"):
        function([labels, labels], [labels])
    with pytest.raises(ValueError, match=r"equally many.*only 0 in `labels_true`"):
        function([], [labels])
    with pytest.raises(ValueError, match=r"at least one label map"):
        function([], [])
    with pytest.raises(ValueError, match=r"`labels_pred` must be a sequence.*a single map"):
        function([labels], labels)
    with pytest.raises(ValueError, match=r"^Image 1: .*same shape"):
        function([labels, labels], [labels, np.array([[1, 2]])])
