import numpy as np
import pytest

from keras_rpe.metrics.masks import area_under_curve, precision_at_recalls

RIGHT = np.array([1, 0, 0, 1], bool)


def test_by_hand():
    # Precision 1 up to a recall of 1/4, then 1/2 up to 2/4.
    assert area_under_curve(RIGHT, ~RIGHT, 4) == pytest.approx(0.25 * 1 + 0.25 * 0.5)
    assert precision_at_recalls(RIGHT, ~RIGHT, 4) == pytest.approx((26 * 1 + 25 * 0.5) / 101)


def test_what_is_neither_right_nor_wrong_counts_nowhere():
    wrong = np.array([0, 1, 0, 0], bool)
    kept = RIGHT | wrong
    for measure in (area_under_curve, precision_at_recalls):
        assert measure(RIGHT, wrong, 3) == measure(RIGHT[kept], wrong[kept], 3)


def test_without_predictions_it_is_zero():
    none = np.zeros(0, bool)
    assert area_under_curve(none, none, 2) == precision_at_recalls(none, none, 2) == 0.0
