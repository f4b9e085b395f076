import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from numpy.testing import assert_array_equal

from keras_rpe.visualization import (
    loss_per_loop,
    overlay_instances,
    sphere_scatter,
    trajectory_picture,
)

PATHS = np.stack([np.eye(3), np.eye(3)])


def pixels_of(picture: np.ndarray, label: int) -> np.ndarray:
    """Where a picture has the color that a label has in `overlay_instances`."""
    color = overlay_instances(np.zeros((8, 8)), np.full((8, 8), label), alpha=1.0)[4, 4]
    return np.abs(picture.astype(int) - color).max(axis=-1) < 10


def on_circle(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def test_pyplot_and_its_settings_are_left_alone():
    before = dict(matplotlib.rcParams), pyplot.get_fignums()
    sphere_scatter(np.eye(3), side=100)
    trajectory_picture(PATHS, side=150)
    loss_per_loop({"embedding_loss": [1.0]})
    assert (dict(matplotlib.rcParams), pyplot.get_fignums()) == before


def test_without_matplotlib_the_error_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "keras-rpe\[plot\]"'):
        sphere_scatter(np.eye(3))


def test_a_view_is_chosen_from_where_the_points_are_seen_and_the_far_side_is_pale():
    points = np.array([[-0.6, -0.64, -0.48]])
    assert pixels_of(sphere_scatter(points, labels=[2], side=150), 2).any()
    assert not pixels_of(sphere_scatter(points, labels=[2], view=(0, 0), side=150), 2).any()


def test_spheres_in_a_row_with_titles():
    x = np.eye(3)
    options = {"labels": [1, 2, 3], "view": (30, 30), "side": 150}
    row = sphere_scatter(x, x[::-1], x, **options)
    assert row.shape == (150, 450, 3)
    assert_array_equal(row[:, :150], sphere_scatter(x, **options))
    assert (row[:, 150:300] != row[:, :150]).any()
    titled = sphere_scatter(x, x[::-1], x, **options, titles=["a", "", "c"])
    assert_array_equal(titled[14:], row)
    assert titled[:14, :150].min() < 128
    assert titled[:14, 150:300].min() == 255
    assert (sphere_scatter(x, view=(30, 30), side=150) != row[:, :150]).any()


def test_many_points_at_one_place_are_a_larger_dot():
    points = np.repeat(np.array([[0.6, 0.8, 0.0], [0.6, -0.8, 0.0]]), [81, 1], axis=0)
    picture = sphere_scatter(points, labels=np.repeat([2, 3], [81, 1]), view=(0, 0), side=400)
    assert picture.dtype == np.uint8
    # The first ones are on the right.
    assert not pixels_of(picture, 2)[:, :200].any()
    assert not pixels_of(picture, 3)[:, 200:].any()
    assert pixels_of(picture, 2).sum() > 4 * pixels_of(picture, 3).sum() > 0


@pytest.mark.parametrize(
    "loops",
    [
        PATHS,
        [np.eye(3), np.eye(3, dtype="float32")],
        np.array([[[1.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]]]),  # Halfway there is no direction.
        on_circle(np.array([[0.5, 3.1], [1.0, -3.1]])),
        on_circle(np.linspace(0.0, 1.5, 1001)[:, None]),
        np.array([[[-40.0, 5.0], [60.0, 105.0]], [[10.0, 55.0], [60.0, 105.0]]]),
        np.array([[[-1e12, 0.0]], [[1e12, 1e-9]]]),
        np.ones((2, 1, 2)),
    ],
)
def test_paths_on_the_ball_on_rings_and_in_the_plane(loops):
    labels = np.arange(2, 2 + np.shape(loops)[1])
    picture = trajectory_picture(loops, labels, side=200)
    assert picture.shape == (217, 200, 3)
    assert picture.dtype == np.uint8
    assert pixels_of(picture[:200], int(labels[-1])).any()
    assert picture[200:].min() < 128  # The key.


def test_few_paths_are_shared_among_groups_and_drawn_by_the_seed():
    angles = np.concatenate([np.random.default_rng(0).uniform(0.0, 2.5, 2000), [4.0, 4.2]])
    labels = np.repeat([2, 3], [2000, 2])
    # The points of label 3 end far apart; their paths are seen where they start.
    loops = on_circle(np.stack([angles, np.repeat([1.0, 4.1], [2000, 2])]))
    first, again, other = (
        trajectory_picture(loops, labels, max_paths=6, side=300, seed=seed) for seed in (0, 0, 1)
    )
    assert_array_equal(first, again)
    assert (first != other).any()
    paths = np.ptp(first[150:230, 90:150].astype(int), axis=-1) > 60
    assert paths.any()


@pytest.mark.parametrize(
    ("points", "options", "word"),
    [
        ((), {}, "embeddings"),
        ((np.eye(3)[0],), {}, "embeddings"),
        ((np.eye(4),), {}, "embeddings"),
        ((np.zeros((0, 3)),), {}, "embeddings"),
        ((np.ones((5, 3)),), {}, "embeddings"),
        ((np.full((5, 3), np.nan),), {}, "embeddings"),
        ((np.eye(3), np.eye(3)[:2]), {}, "embeddings"),
        ((np.eye(3),), {"labels": [1, 2]}, "labels"),
        ((np.eye(3),), {"labels": [1.0, 2.0, 3.0]}, "labels"),
        ((np.eye(3),), {"titles": ["a", "b"]}, "titles"),
        ((np.eye(3),), {"view": (0, 91)}, "view"),
        ((np.eye(3),), {"view": 3}, "view"),
        ((np.eye(3),), {"side": 99}, "side"),
        (100 * (np.eye(3),), {"side": 300}, "side"),
    ],
)
def test_scatter_refuses(points, options, word):
    with pytest.raises(ValueError, match=rf"`{word}` must .*Received"):
        sphere_scatter(*points, **options)


@pytest.mark.parametrize(
    ("loops", "options", "word"),
    [
        (1.0, {}, "loops"),
        (PATHS[:1], {}, "loops"),
        (np.zeros((2, 0, 3)), {}, "loops"),
        (np.ones((2, 5, 4)), {}, "loops"),
        (np.full((2, 5, 2), np.nan), {}, "loops"),
        ([np.eye(3), np.eye(2)], {}, "loops"),
        (PATHS, {"labels": [1, 2]}, "labels"),
        (PATHS, {"max_paths": 0}, "max_paths"),
        (PATHS, {"view": (0, -91)}, "view"),
        (PATHS, {"side": 149}, "side"),
        (PATHS, {"seed": -1}, "seed"),
    ],
)
def test_trajectories_refuse(loops, options, word):
    with pytest.raises(ValueError, match=rf"`{word}`.* must .*Received"):
        trajectory_picture(loops, **options)
