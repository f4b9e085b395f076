import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.visualization.sphere import SphereView

ANGLES = st.tuples(st.floats(-720, 720), st.floats(-90, 90))


@settings(max_examples=50, deadline=None)
@given(ANGLES, st.integers(0, 10**6))
def test_a_view_is_a_rotation(angles, seed):
    view = SphereView(*angles)
    axes = view.axes()
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    assert axes[0, 2] == 0  # the third axis is never tilted sideways
    assert axes[1, 2] >= -1e-12  # and points upwards
    x = np.random.default_rng(seed).normal(size=(5, 3))
    places, nearness = view.project(x)
    np.testing.assert_allclose(
        np.linalg.norm(places, axis=1) ** 2 + nearness**2, np.linalg.norm(x, axis=1) ** 2
    )


def test_the_eye_is_where_the_angles_say():
    azimuth, elevation = np.radians([50.0, 35.0])
    eye = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    places, nearness = SphereView(50, 35).project(eye)
    np.testing.assert_allclose(places, 0, atol=1e-12)
    assert nearness == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_a_chosen_view_hides_nothing_of_a_small_cap(seed, count):
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=3)
    x = middle / np.linalg.norm(middle) + 0.3 * rng.uniform(-1, 1, (count, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert (SphereView.of(x, np.ones(count)).project(x)[1] > 0).all()


def test_a_chosen_view_prefers_what_weighs_more():
    x = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    for weights in ([1.0, 3.0], [3.0, 1.0]):
        nearness = SphereView.of(x, np.array(weights)).project(x)[1]
        assert (nearness[1] > 0) == (weights[1] > weights[0])
