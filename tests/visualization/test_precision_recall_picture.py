import numpy as np
import pytest

from keras_rpe.metrics import BoundaryFigures
from keras_rpe.visualization import precision_recall_picture


def boundary_figures() -> BoundaryFigures:
    counts = np.array([[[80, 100, 40, 100], [60, 100, 45, 75], [0, 100, 0, 0]]])
    return BoundaryFigures.from_counts(counts, np.array([0.25, 0.5, 0.75]))


def near(picture: np.ndarray, recall: float, precision: float, side: int) -> np.ndarray:
    """The pixels around a place of the plot, whose upper left corner is at row 14, column 58."""
    row, column = round(14 + side * (1 - precision)), round(58 + side * recall)
    return picture[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3).astype(int)


def test_precision_recall_picture_puts_dots_at_the_best_f_measure_and_at_points():
    figures = boundary_figures()
    picture = precision_recall_picture({"softmax": figures}, {"Human": (0.75, 0.9)}, side=300)
    assert picture.shape == (362, 392, 3)
    assert picture.dtype == np.uint8
    dot = near(picture, figures.ods_recall, figures.ods_precision, 300)
    np.testing.assert_allclose(dot, np.tile((0, 114, 178), (9, 1)), atol=12)
    point = near(picture, 0.75, 0.9, 300)
    np.testing.assert_allclose(point, np.tile((46, 139, 46), (9, 1)), atol=12)
    # Halfway between two thresholds there is a line, and beyond the lowest there is none.
    middle = near(picture, 0.7, 0.5, 300)
    assert middle[:, 0].min() < 100
    assert (near(picture, 0.9, 0.3, 300)[:, 0] > 150).all()


def test_precision_recall_picture_draws_methods_without_a_right_pixel():
    nothing = BoundaryFigures.from_counts(np.array([[[0, 9, 0, 0]]]), np.array([0.5]))
    names = {f"method {i}": nothing for i in range(8)}
    assert precision_recall_picture(names, {"nobody": (0.0, 0.0)}).shape == (542, 572, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "`figures` must hold at least one"),
        (({}, {"Human": (0.5, 1.5)}), "`points` must be pairs"),
        (({}, {"Human": (0.5, float("nan"))}), "`points` must be pairs"),
        (({}, {"Human": (0.5, 0.5)}, 100), "`side` must be an integer"),
    ],
)
def test_precision_recall_picture_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        precision_recall_picture(*arguments)
