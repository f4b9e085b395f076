import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.visualization.sphere import Dots


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 3), st.integers(0, 10**6))
def test_dots_stand_for_all_points(count, dim, seed):
    rng = np.random.default_rng(seed)
    points, colors = rng.uniform(-0.05, 0.05, (count, dim)), rng.uniform(size=(count, 3))
    colors = colors[rng.integers(0, min(3, count), count)]
    dots = Dots.of(points, colors)
    np.testing.assert_allclose(dots.shares.sum(), 1)
    np.testing.assert_allclose(dots.shares @ dots.places, points.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(dots.shares @ dots.colors, colors.mean(axis=0), atol=1e-12)
    assert (np.diff(dots.shares) <= 1e-12).all()
    # No point is further from a dot of its colour than a cell is long.
    near = np.abs(points[:, None] - dots.places).max(-1) <= 0.02
    alike = np.abs(colors[:, None] - dots.colors).max(-1) <= 1 / 16
    assert (near & alike).any(axis=1).all()


def test_colors_stay_apart_at_one_place():
    colors = np.repeat([[1.0, 0, 0], [0, 0, 1.0]], [6, 2], axis=0)
    dots = Dots.of(np.zeros((8, 2)), colors)
    np.testing.assert_array_equal(dots.colors, [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(dots.shares, [0.75, 0.25])


def test_area_grows_with_the_root_of_the_share_and_never_vanishes():
    many = Dots(np.zeros((3, 2)), np.zeros((3, 3)), np.array([0.64, 0.16, 1e-9]))
    areas = many.areas(400)
    np.testing.assert_allclose(areas[0] / areas[1], 2)
    assert areas[2] > 4
    np.testing.assert_allclose(many.areas(200), areas / 4)


def test_the_extent_scales_the_cells():
    points = np.array([[0.0], [1.0]])
    assert len(Dots.of(points, np.zeros((2, 3))).shares) == 2
    assert len(Dots.of(points, np.zeros((2, 3)), extent=100.0).shares) == 1
