from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_rpe.visualization import embedding_colors


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays("float64", (4, 5, 3), elements=st.floats(-1, 1)))
def test_three_dimensions_are_the_colors(x):
    (colors,) = embedding_colors(x)
    np.testing.assert_allclose(colors, 255 * (x + 1) / 2, atol=0.5 + 1e-9)


def test_fewer_dimensions_leave_the_middle():
    (colors,) = embedding_colors(np.ones((2, 2, 1)))
    assert colors[0, 0].tolist() == [255, 128, 128]


def test_maps_share_one_projection():
    rng = np.random.default_rng(0)
    last, other = unit(rng, 12, 10, 16), unit(rng, 12, 10, 16)
    other[3:6, 2:7] = last[3:6, 2:7]
    first_colors, last_colors = embedding_colors(other, last)
    np.testing.assert_array_equal(first_colors[3:6, 2:7], last_colors[3:6, 2:7])
    np.testing.assert_array_equal(embedding_colors(last)[0], last_colors)


def test_principal_axes_against_svd():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 20, 6)) * np.array([1, 0.2, 3, 0.1, 2, 0.3]) + 5
    (colors,) = embedding_colors(x)
    flat = x.reshape(-1, 6)
    _, _, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    axes = axes[:3] * np.sign([axis[np.abs(axis).argmax()] for axis in axes[:3]])[:, None]
    projected = (flat - flat.mean(0)) @ axes.T
    projected /= np.percentile(np.abs(projected), 99.5)
    expected = 255 * (np.clip(projected, -1, 1) + 1) / 2
    np.testing.assert_allclose(colors.reshape(-1, 3), expected, atol=0.51)


def test_groups_keep_different_colors():
    centers = np.eye(8)[:4]
    colors = embedding_colors(centers[np.arange(16).reshape(4, 4) // 4])[0][:, 0].astype(float)
    assert min(np.abs(b - a).max() for a, b in pairwise(colors)) > 60


def test_equal_embeddings_are_gray():
    assert np.unique(embedding_colors(np.ones((3, 3, 8)))[0]).tolist() == [128]


@pytest.mark.parametrize(
    "maps",
    [
        (),
        (np.ones((2, 3)),),
        (np.ones((2, 2, 4)), np.ones((2, 2, 5))),
        (np.ones((0, 2, 4)),),
        (np.full((2, 2, 4), np.nan),),
        (1.0,),
    ],
)
def test_colors_refuse(maps):
    with pytest.raises(ValueError, match=r"`embeddings`.*Received"):
        embedding_colors(*maps)


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 64), st.integers(0, 10**6))
def test_random_projection_is_onto_three_orthonormal_axes(depth, seed):
    """A map of ± unit vectors gives the axes back."""
    basis = np.stack([np.eye(depth), -np.eye(depth)])
    colors = embedding_colors(basis, projection="random", seed=seed)[0].astype(float)
    shown = np.where((colors == 0) | (colors == 255), np.nan, 2 * colors / 255 - 1)
    positive, negative = shown
    np.testing.assert_allclose(positive, -negative, atol=0.009)
    axes = positive / (depth**0.5 / 2)
    # An axis with a clipped entry cannot be read back.
    axes = axes[:, np.isfinite(axes).all(axis=0)]
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=0.02)


def test_random_projection_depends_on_the_embedding_and_the_seed_alone():
    rng = np.random.default_rng(0)
    one, other = unit(rng, 5, 6, 16), unit(rng, 7, 8, 16)
    other[2, 3] = one[1, 1]
    (alone,) = embedding_colors(one, projection="random", seed=3)
    with_other, (_, again) = (
        embedding_colors(other, projection="random", seed=3)[0],
        embedding_colors(other, one, projection="random", seed=3),
    )
    np.testing.assert_array_equal(with_other[2, 3], alone[1, 1])
    np.testing.assert_array_equal(again, alone)
    assert (embedding_colors(one, projection="random", seed=4)[0] != alone).any()


def test_random_projection_uses_the_range_of_colors():
    (colors,) = embedding_colors(unit(np.random.default_rng(0), 50, 50, 32), projection="random")
    assert ((colors == 0) | (colors == 255)).mean() < 0.06
    assert 55 < colors.std() < 75


def test_random_projection_of_three_dimensions_changes_nothing():
    x = unit(np.random.default_rng(0), 4, 4, 3)
    np.testing.assert_array_equal(
        embedding_colors(x, projection="random", seed=9)[0], embedding_colors(x)[0]
    )


@pytest.mark.parametrize(
    "wrong", [{"projection": "pca"}, {"projection": None}, {"seed": -1}, {"seed": 0.5}]
)
def test_projection_refuses(wrong):
    with pytest.raises(ValueError, match=rf"`{next(iter(wrong))}` must .*Received"):
        embedding_colors(np.ones((2, 2, 5)), **wrong)
