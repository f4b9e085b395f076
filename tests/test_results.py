"""Measurements of instances."""

import numpy as np
import pytest

from keras_rpe.models import Instances


def test_measured_like_the_shapes_that_they_are():
    rows, columns = np.mgrid[:60, :90]
    labels = np.zeros((60, 90), "int32")
    labels[(rows - 30) ** 2 / 100 + (columns - 30) ** 2 / 400 <= 1] = 1
    labels[10:20, 70:90] = 2
    boxes = np.array([[20, 10, 41, 51], [10, 70, 20, 90], [0, 0, 0, 0]], "int32")
    # The third has no pixels.
    found = Instances(labels, np.array([0.9, 0.8, np.nan]), boxes, np.array([1, 2, 0]))
    image = np.stack([rows, columns, labels], axis=-1).astype("uint16")
    table = found.measure(image, pixel_size=0.5)
    assert table["area_px"].tolist() == [int((labels == 1).sum()), 200, 0]
    np.testing.assert_allclose(table["centroid_row"], [30, 14.5, np.nan])
    np.testing.assert_allclose(table["centroid_column"], [30, 79.5, np.nan])
    assert table["major_axis_px"][0] == pytest.approx(40, rel=0.03)
    assert table["minor_axis_um"][0] == pytest.approx(10, rel=0.03)
    assert table["solidity"][1] == 1
    assert table["perimeter_px"][1] == pytest.approx(56)
    assert table["area_um2"].tolist() == [table["area_px"][0] / 4, 50, 0]
    np.testing.assert_allclose(table["mean_1"], table["centroid_row"])
    np.testing.assert_allclose(table["max_2"], [50, 89, np.nan])
    np.testing.assert_allclose(table["mean_3"], [1, 2, np.nan])
    frame = found.to_dataframe()
    assert frame.shape == (3, 14)
    assert frame["class"].tolist() == [1, 2, 0]
    gray = found.measure(image[..., 0])
    np.testing.assert_array_equal(gray["mean_1"], table["mean_1"])
    nothing = Instances(np.zeros((8, 8), "int32"), *(np.zeros(n) for n in (0, (0, 4), 0)))
    assert nothing.to_dataframe(np.zeros((8, 8))).shape == (0, 16)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"image": np.zeros((3, 3))}, "image"), ({"pixel_size": 0}, "pixel_size")],
)
def test_measure_refuses(arguments, word):
    nothing = Instances(np.zeros((8, 8), "int32"), *(np.zeros(n) for n in (0, (0, 4), 0)))
    with pytest.raises(ValueError, match=f"`{word}` must"):
        nothing.measure(**arguments)
