import numpy as np
import pytest

from keras_rpe.metrics import BoundaryFigures


def test_every_image_has_its_own_best_threshold():
    counts = np.array(
        [
            [[10, 10, 10, 10], [2, 10, 2, 2]],
            [[10, 10, 10, 40], [8, 10, 8, 10]],
        ]
    )
    figures = BoundaryFigures.from_counts(counts, np.array([0.2, 0.6]))
    assert figures.recall.tolist() == [1.0, 0.5]
    np.testing.assert_allclose(figures.precision, [0.4, 10 / 12])
    assert figures.ois_recall == pytest.approx(0.9)
    assert figures.ois_precision == pytest.approx(0.9)
    assert figures.ois == pytest.approx(0.9)
    assert figures.ods < figures.ois


def test_the_best_threshold_lies_between_two():
    counts = np.array([[[9, 10, 2, 10], [2, 10, 9, 10]]])
    figures = BoundaryFigures.from_counts(counts, np.array([0.2, 0.4]))
    assert figures.ods_threshold == pytest.approx(0.3, abs=0.002)
    assert figures.ods == pytest.approx(0.55, abs=1e-3)
    assert figures.ods_recall == pytest.approx(figures.ods_precision, abs=0.01)


def test_area_counts_nothing_outside_the_measured_recalls():
    counts = np.array([[[80, 100, 50, 100], [40, 100, 100, 100]]])
    figures = BoundaryFigures.from_counts(counts, np.array([0.2, 0.4]))
    at = np.arange(40, 81) / 100
    assert figures.ap == pytest.approx((1 - (at - 0.4) / 0.4 * 0.5).sum() * 0.01)


def test_one_recall_has_no_area():
    counts = np.array([[[5, 10, 5, 5], [5, 10, 5, 5]]])
    assert BoundaryFigures.from_counts(counts, np.array([0.2, 0.4])).ap == 0


def test_a_single_threshold():
    figures = BoundaryFigures.from_counts(np.array([[[5, 10, 5, 5]]]), np.array([0.5]))
    assert (figures.ods_threshold, figures.ods_recall, figures.ods_precision) == (0.5, 0.5, 1.0)
    assert figures.ods == pytest.approx(2 / 3)
