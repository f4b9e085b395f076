import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_rpe.visualization import embedding_colors, overlay_instances, sphere_scatter

VIEW = (0.0, 0.0)
FRONT = np.array([[1.0, 0.0, 0.0]])
GRAY = np.array([140, 145, 153])


def at(picture: np.ndarray, point: np.ndarray, panel: int = 0, side: int = 300) -> np.ndarray:
    """The colour at a place seen from the first axis; 1.09 is half of the width."""
    column = panel * side + side / 2 * (1 + point[1] / 1.09)
    row = side / 2 * (1 - point[2] / 1.09)
    return picture[round(row), round(column)].astype(int)


def instance_color(label: int) -> np.ndarray:
    labels = np.full((8, 8), label)
    return overlay_instances(np.zeros((8, 8)), labels, alpha=1.0)[4, 4].astype(int)


def test_dots_have_the_colors_of_the_overlay_at_their_places():
    points = np.array([[0.6, 0.8, 0.0], [0.6, -0.48, 0.64], [0.8, 0.0, -0.6]])
    labels = np.array([7, 1234, 0])
    picture = sphere_scatter(points, labels=labels, view=VIEW, side=300)
    assert picture.shape == (300, 300, 3)
    assert picture.dtype == np.uint8
    for point, color in zip(points, [instance_color(7), instance_color(1234), GRAY]):
        assert_allclose(at(picture, point), color, atol=2)


def test_the_far_side_is_pale():
    points = np.array([[0.6, 0.8, 0.0], [-0.6, -0.8, 0.0]])
    picture = sphere_scatter(points, labels=[2, 2], view=VIEW, side=300)
    near, far = (at(picture, point) for point in points)
    assert_allclose(near, instance_color(2), atol=2)
    # The same colour under a ball of opacity 0.64, which is nearly white.
    assert_allclose(far, 0.36 * near + 0.64 * 235, atol=30)
    assert (far > near + 40).any()


def test_without_labels_the_colors_are_those_of_the_embedding():
    point = np.array([[0.6, 0.0, 0.8]])
    picture = sphere_scatter(point, view=VIEW, side=300)
    assert_allclose(at(picture, point[0]), embedding_colors(point[None])[0][0, 0], atol=2)


@pytest.mark.parametrize("color", [np.array([[10, 200, 30]], "uint8"), [[0.2, 0.4, 0.6]]])
def test_given_colors(color):
    picture = sphere_scatter(FRONT, colors=color, view=VIEW, side=300)
    expected = np.asarray(color)[0] * (1 if np.asarray(color).dtype == np.uint8 else 255)
    assert_allclose(at(picture, FRONT[0]), expected, atol=2)


def test_the_order_and_the_shape_of_the_points_do_not_matter():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = np.arange(12)
    order = rng.permutation(12)
    picture = sphere_scatter(x, labels=labels, side=150)
    assert_array_equal(
        sphere_scatter(x.reshape(3, 4, 3), labels=labels.reshape(3, 4), side=150), picture
    )
    shuffled = sphere_scatter(x[order], labels=labels[order], side=150)
    # Where two dots of one size overlap, either may be above.
    assert (shuffled != picture).any(-1).mean() < 0.01


def test_panels_rows_and_titles():
    x = np.eye(3)
    one = sphere_scatter(x, labels=[1, 2, 3], view=(30, 30), side=150)
    row = sphere_scatter(x, x[::-1], x, labels=[1, 2, 3], view=(30, 30), side=150)
    assert row.shape == (150, 450, 3)
    assert_array_equal(row[:, :150], one)
    assert_array_equal(row[:, 300:], one)
    assert (row[:, 150:300] != one).any()
    grid = sphere_scatter(
        x, x[::-1], x, labels=[1, 2, 3], view=(30, 30), side=150, columns=2, titles=["a", "", "c"]
    )
    strip = grid.shape[0] // 2 - 150
    assert grid.shape == (2 * 150 + 2 * strip, 300, 3)
    assert strip == 14
    # Text is anti-aliased to other pixels where a panel does not start at a whole one.
    assert np.abs(grid[strip : strip + 150, :150].astype(int) - one).mean() < 0.5
    assert grid[:strip, :150].min() < 128
    assert grid[:strip, 150:].min() == 255
    assert grid[150 + strip :, 150:].min() == 255


def test_more_points_make_a_larger_dot():
    points = np.repeat(np.array([[0.6, 0.8, 0.0], [0.6, -0.8, 0.0]]), [81, 1], axis=0)
    labels = np.repeat([2, 3], [81, 1])
    picture = sphere_scatter(points, labels=labels, view=VIEW, side=600).astype(int)
    sizes = [(np.abs(picture - instance_color(k)).max(-1) < 6).sum() for k in (2, 3)]
    # The area goes with the root of the number; edges and their blending blur it a little.
    assert 6 < sizes[0] / sizes[1] < 14


def test_mean_shift_moves_the_points_of_real_embeddings_together(golden_root):
    with np.load(golden_root / "mean_shift_digits_a.npz", allow_pickle=False) as file:
        loops, labels = file["embeddings"][:, 3], file["instances"][3]
    picture = sphere_scatter(loops[0], loops[-1], labels=labels, side=240)
    assert picture.shape == (240, 480, 3)
    colorful = np.ptp(picture.astype(int), axis=-1) > 60
    assert colorful[:, 240:].sum() < 0.5 * colorful[:, :240].sum()
    assert colorful[:, 240:].sum() > 100


UNIT = np.eye(3)


@pytest.mark.parametrize(
    ("points", "options", "word"),
    [
        ((), {}, "embeddings"),
        ((1.0,), {}, "embeddings"),
        ((np.eye(3)[0],), {}, "embeddings"),
        ((np.eye(4),), {}, "embeddings"),
        ((np.zeros((0, 3)),), {}, "embeddings"),
        ((np.ones((5, 3)),), {}, "embeddings"),
        ((np.full((5, 3), np.nan),), {}, "embeddings"),
        ((UNIT, UNIT[:2]), {}, "embeddings"),
        ((UNIT,), {"labels": [1, 2]}, "labels"),
        ((UNIT,), {"labels": [1.0, 2.0, 3.0]}, "labels"),
        ((UNIT,), {"labels": [1, 2, 3], "colors": UNIT}, "colors"),
        ((UNIT,), {"colors": UNIT[:2]}, "colors"),
        ((UNIT,), {"colors": 2 * UNIT}, "colors"),
        ((UNIT,), {"colors": np.full((3, 3), np.nan)}, "colors"),
        ((UNIT,), {"colors": UNIT.astype(int)}, "colors"),
        ((UNIT,), {"titles": ["a", "b"]}, "titles"),
        ((UNIT,), {"columns": 0}, "columns"),
        ((UNIT,), {"view": (0, 91)}, "view"),
        ((UNIT,), {"view": (np.nan, 0)}, "view"),
        ((UNIT,), {"view": 3}, "view"),
        ((UNIT,), {"view": "up"}, "view"),
        ((UNIT,), {"side": 99}, "side"),
        ((UNIT,), {"side": 300.0}, "side"),
        (100 * (UNIT,), {"side": 300}, "side"),
    ],
)
def test_refuses(points, options, word):
    with pytest.raises(ValueError, match=rf"`{word}` must .*Received"):
        sphere_scatter(*points, **options)
