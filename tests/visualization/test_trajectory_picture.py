import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_rpe.ops import mean_shift
from keras_rpe.visualization import overlay_instances, trajectory_picture
from keras_rpe.visualization.sphere import PlaneStage, RingStage, SphereStage, SphereView

SIDE = 400


def color(label: int) -> np.ndarray:
    return overlay_instances(np.zeros((8, 8)), np.full((8, 8), label), alpha=1.0)[4, 4].astype(int)


def pixel(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The colour at a place of the plot, whose half-width is 1.09."""
    x, y = place / 1.09
    return picture[round(SIDE / 2 * (1 - y)), round(SIDE / 2 * (1 + x))].astype(int)


def on_circle(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def test_a_path_follows_a_great_circle_to_a_dot_from_a_ring():
    start, end = np.array([0.8, -0.6, 0.0]), np.array([0.6, 0.0, 0.8])
    loops = np.stack([start, end])[:, None]
    picture = trajectory_picture(loops, labels=[2], view=(0, 0), side=SIDE)
    assert picture.shape == (SIDE + 34, SIDE, 3)
    assert picture.dtype == np.uint8
    assert_allclose(pixel(picture, end[1:]), color(2), atol=2)
    assert pixel(picture, start[1:]).min() > 250
    # In the middle the path is on the sphere, and not on the chord.
    middle = (start + end) / np.linalg.norm(start + end)
    around = picture[: int(SIDE)].astype(int)
    row = round(SIDE / 2 * (1 - middle[2] / 1.09))
    hit = np.flatnonzero(np.ptp(around[row], axis=-1) > 60)
    assert abs(hit.mean() - SIDE / 2 * (1 + middle[1] / 1.09)) < 3


def test_what_moves_behind_the_ball_is_pale():
    loops = np.array([[[0.6, 0.8, 0.0]], [[0.8, 0.0, 0.6]]])
    front, behind = (
        trajectory_picture(x, labels=[2], view=(0, 0), side=SIDE)[:SIDE].astype(int)
        for x in (loops, loops * [-1, 1, 1])
    )
    assert np.ptp(front, axis=-1).max() > 200
    assert 30 < np.ptp(behind, axis=-1).max() < 130


def test_rings_grow_with_the_loops():
    angles = np.array([[0.5], [0.5], [2.0]])
    picture = trajectory_picture(on_circle(angles), labels=[2], side=SIDE)
    assert_allclose(pixel(picture, on_circle(np.array(2.0))), color(2), atol=2)
    assert pixel(picture, 0.3 * on_circle(np.array(0.5))).min() > 250
    half = pixel(picture, 0.475 * on_circle(np.array(0.5)))
    assert np.ptp(half) > 30


def test_stages_place_points():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    places, front = SphereStage(SphereView(0, 0)).place(x, 1)
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert_allclose(places, expected[:, 1:])
    assert_array_equal(front, x[:, 0] >= 0)
    places, front = RingStage(4).place(x[:, :2], 4)
    assert_allclose(places, x[:, :2] / np.linalg.norm(x[:, :2], axis=1, keepdims=True))
    assert front.all()
    assert_allclose(np.linalg.norm(RingStage(4).place(x[:, :2], 2)[0], axis=1), 0.65)
    places, _ = PlaneStage(np.array([1.0, 2.0]), 5.0).place(np.array([[6.0, -3.0]]), 0)
    assert_allclose(places, [[0.11 + 0.93, 0.11 - 0.93]])


def test_points_halfway_between_opposite_ones_have_no_direction_but_a_picture():
    loops = np.array([[[1.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]]])
    assert trajectory_picture(loops, side=SIDE).shape == (SIDE + 34, SIDE, 3)


def test_the_plane_shows_points_of_any_length():
    loops = np.array([[[-40.0, 5.0], [60.0, 105.0]], [[10.0, 55.0], [60.0, 105.0]]])
    picture = trajectory_picture(loops, labels=[2, 3], side=SIDE)
    # The middle of all points is in the middle of the square, which is moved by 0.11.
    assert_allclose(pixel(picture, np.array([0.11, 0.11])), color(2), atol=2)
    still = trajectory_picture(np.ones((2, 3, 2)), side=SIDE)
    assert_allclose(pixel(still, np.array([0.11, 0.11])), [0, 115, 179], atol=2)


@pytest.mark.parametrize("loops", [1, 13, 1000])
def test_any_number_of_loops(loops):
    angles = np.linspace(0.0, 1.5, loops + 1)[:, None]
    picture = trajectory_picture(on_circle(angles), labels=[2], side=SIDE)
    assert_allclose(pixel(picture, on_circle(np.array(1.5))), color(2), atol=2)
    assert (picture[100:300, 100:300].astype(int).sum(axis=-1) < 600).mean() < 0.2


def test_few_paths_are_shared_among_groups_and_drawn_by_the_seed():
    rng = np.random.default_rng(0)
    angles = np.concatenate([rng.uniform(0.0, 2.5, 2000), [4.0, 4.2]])
    labels = np.repeat([2, 3], [2000, 2])
    loops = on_circle(np.stack([angles, np.repeat([1.0, 4.1], [2000, 2])]))
    first, again, other = (
        trajectory_picture(loops, labels, max_paths=6, side=SIDE, seed=seed) for seed in (0, 0, 1)
    )
    assert_array_equal(first, again)
    assert (first != other).any()
    for angle in (4.0, 4.2):
        start = 0.3 * on_circle(np.array(angle))
        ring = [pixel(first, start + 0.016 * on_circle(a)) for a in np.linspace(0, 6, 40)]
        assert min(np.abs(one - color(3)).max() for one in ring) < 60


def test_loops_of_mean_shift_as_a_list():
    x = np.random.default_rng(0).normal(size=(1, 30, 3)).astype("float32")
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    loops = [x[0], np.asarray(mean_shift(x, iterations=1, bandwidth=0.3))[0]]
    picture = trajectory_picture(loops, side=150)
    assert_array_equal(picture, trajectory_picture(np.stack(loops), side=150))


def test_real_embeddings(golden_root):
    with np.load(golden_root / "mean_shift_digits_a.npz", allow_pickle=False) as file:
        loops, labels = file["embeddings"][:, 3], file["instances"][3]
    sides = [trajectory_picture(loops, labels, view=(a, 0), side=SIDE) for a in (0, 180)]
    both = np.concatenate(sides).astype(int)
    # Each digit is on one of the two sides.
    for k in range(1, 8):
        assert (np.abs(both - color(k)).max(-1) < 10).sum() > 10


PATHS = np.stack([np.eye(3), np.eye(3)])


@pytest.mark.parametrize(
    ("loops", "options", "word"),
    [
        (1.0, {}, "loops"),
        (np.eye(3), {}, "loops"),
        (PATHS[:1], {}, "loops"),
        (np.zeros((2, 0, 3)), {}, "loops"),
        (np.ones((2, 5, 4)), {}, "loops"),
        (np.ones((2, 5, 3)), {}, "loops"),
        (np.full((2, 5, 2), np.inf), {}, "loops"),
        (np.full((2, 5, 2), np.nan), {}, "loops"),
        (np.full((2, 5, 2), 1e300), {}, "loops"),
        ([np.eye(3), np.eye(2)], {}, "loops"),
        (PATHS, {"labels": [1, 2]}, "labels"),
        (PATHS, {"max_paths": 0}, "max_paths"),
        (PATHS, {"view": (0, -91)}, "view"),
        (PATHS, {"side": 149}, "side"),
        (PATHS, {"seed": -1}, "seed"),
    ],
)
def test_refuses(loops, options, word):
    with pytest.raises(ValueError, match=rf"`{word}`.* must .*Received"):
        trajectory_picture(loops, **options)
