import numpy as np
import pytest
from reference import unit_points

from keras_rpe.ops.maps import coordinate_channels, rotate_by_position


def test_coordinates() -> None:
    x = np.asarray(coordinate_channels(np.zeros((2, 4, 8, 3), "float32")))
    assert x.shape == (2, 4, 8, 2)
    np.testing.assert_allclose(x[1, :, 5, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(x[1, 2, :, 1], np.arange(-7, 8, 2) / 8)


def test_rotation_equals_complex_numbers() -> None:
    x = unit_points((1, 5, 7, 8))
    periods = [3.0, 10.0, 25.0]
    y = np.asarray(rotate_by_position(x, periods))
    for k in range(4):
        theta = np.pi * (k // 3) / 2
        row, column = np.mgrid[:5, :7]
        angle = 2 * np.pi / periods[k % 3] * (row * np.sin(theta) + column * np.cos(theta))
        expected = (x[0, ..., k] + 1j * x[0, ..., k + 4]) * np.exp(1j * angle)
        np.testing.assert_allclose(y[0, ..., k] + 1j * y[0, ..., k + 4], expected, atol=1e-12)


def test_rotation_keeps_lengths_and_depends_on_displacement_alone() -> None:
    v, w = unit_points((2, 12))
    x = np.zeros((1, 20, 20, 12))
    x[...] = v
    x[0, 10:] = w
    y = np.asarray(rotate_by_position(x, [8.0, 16.0]))[0]
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), 1, atol=1e-12)
    np.testing.assert_allclose(y[2, 3] @ y[5, 9], y[4, 7] @ y[7, 13], atol=1e-12)
    np.testing.assert_allclose(y[9, 3] @ y[12, 9], y[9, 10] @ y[12, 16], atol=1e-12)


@pytest.mark.parametrize("distance", [6, 10])
def test_like_features_apart_get_other_embeddings(distance: int) -> None:
    x = np.ones((1, 30, 30, 24)) / 24**0.5
    y = np.asarray(rotate_by_position(x, [12.0, 24.0, 48.0]))[0]
    for direction in ((distance, 0), (0, distance), (distance, distance)):
        assert y[5, 5] @ y[5 + direction[0], 5 + direction[1]] < 0.5
