import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.visualization import embedding_colors, embedding_loops, overlay_instances


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_embeddings_are_drawn_without_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np; from keras_rpe.visualization import embedding_colors\n"
        "print(embedding_colors(np.ones((1, 1, 3)))[0].tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[[[255, 255, 255]]]"


def test_up_to_three_dimensions_are_the_colors():
    x = np.random.default_rng(0).uniform(-1, 1, (4, 5, 3))
    np.testing.assert_allclose(embedding_colors(x)[0], 255 * (x + 1) / 2, atol=0.5 + 1e-9)
    np.testing.assert_array_equal(
        embedding_colors(x, projection="random", seed=9)[0], embedding_colors(x)[0]
    )
    assert embedding_colors(np.ones((2, 2, 1)))[0][0, 0].tolist() == [255, 128, 128]


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
    assert np.unique(embedding_colors(np.ones((3, 3, 8)))[0]).tolist() == [128]


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


def test_random_projection_depends_only_on_the_embedding_and_the_seed():
    rng = np.random.default_rng(0)
    one, other = unit(rng, 5, 6, 16), unit(rng, 7, 8, 16)
    other[2, 3] = one[1, 1]
    (alone,) = embedding_colors(one, projection="random", seed=3)
    with_other, again = embedding_colors(other, one, projection="random", seed=3)
    np.testing.assert_array_equal(with_other[2, 3], alone[1, 1])
    np.testing.assert_array_equal(again, alone)
    assert (embedding_colors(one, projection="random", seed=4)[0] != alone).any()


@pytest.mark.parametrize(
    ("maps", "options", "word"),
    [
        ((), {}, "embeddings"),
        ((np.ones((2, 3)),), {}, "embeddings"),
        ((np.ones((2, 2, 4)), np.ones((2, 2, 5))), {}, "embeddings"),
        ((np.ones((0, 2, 4)),), {}, "embeddings"),
        ((np.full((2, 2, 4), np.nan),), {}, "embeddings"),
        ((np.ones((2, 2, 5)),), {"projection": "pca"}, "projection"),
        ((np.ones((2, 2, 5)),), {"seed": -1}, "seed"),
    ],
)
def test_colors_refuse(maps, options, word):
    with pytest.raises(ValueError, match=rf"`{word}` must .*Received"):
        embedding_colors(*maps, **options)


@pytest.mark.parametrize(("dim", "embed_background"), [(2, True), (6, False)])
def test_loops_side_by_side(dim, embed_background):
    model = InstanceSegmenter(
        unet_encoder((8, 16), blocks=1), embedding_dim=dim, iterations=2, fusion_filters=8,
        inference_iterations=3, embed_background=embed_background, find_diameter=False,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 255, (19, 30, 3), "uint8")
    picture = embedding_loops(model, image, titles=False)
    assert picture.shape == (19, 5 * 30 + 4 * 6, 3)
    assert picture.dtype == np.uint8
    plain = overlay_instances(image, np.zeros((19, 30), int))
    np.testing.assert_array_equal(picture[:, :30], plain)
    embedding, scores = map(np.asarray, model.embed(image[None].astype("float32")))
    loops = np.asarray(model.shift(embedding, scores, return_sequences=True))
    shown = scores[0, 1::2, 1::2] >= (-1 if embed_background else 0.5)
    maps = embedding_colors(*(x * shown for x in (embedding[0], *loops[:, 0])))
    for index, colors in enumerate(maps, start=1):
        part = picture[:, 36 * index : 36 * index + 30]
        np.testing.assert_array_equal(part, colors.repeat(2, 0).repeat(2, 1)[:19, :30])
    for word, options in (("scale", {"scale": 0}), ("projection", {"projection": "x"})):
        with pytest.raises(ValueError, match=rf"`{word}` must .*Received"):
            embedding_loops(model, image, **options)
    titled = embedding_loops(model, image)
    np.testing.assert_array_equal(titled[-19:], picture)
    assert titled[:-19].min() < 128
    random = {"titles": False, "projection": "random", "seed": 5}
    small, large = (embedding_loops(model, image, **random, scale=k) for k in (1, 3))
    np.testing.assert_array_equal(
        large[:, 96 : 96 + 90], small[:, 36 : 36 + 30].repeat(3, 0).repeat(3, 1)
    )
