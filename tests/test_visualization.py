from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_rpe.metrics import BoundaryFigures
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.visualization import (
    embedding_colors,
    embedding_loops,
    overlay_instances,
    precision_recall_picture,
)


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def squares() -> np.ndarray:
    labels = np.zeros((24, 40), "int32")
    for k in range(3):
        labels[4:16, 2 + 12 * k : 14 + 12 * k] = k + 1
    return labels


@pytest.mark.parametrize("shape", [(24, 40), (24, 40, 1), (24, 40, 3), (24, 40, 4)])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int32", "float64"])
def test_overlay_takes_all_images(shape, dtype):
    image = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    picture = overlay_instances(image, squares())
    assert picture.shape == (24, 40, 3)
    assert picture.dtype == np.uint8


def test_overlay_stretches_percentiles():
    image = np.linspace(100, 30000, 24 * 40).reshape(24, 40).astype("uint16")
    picture = overlay_instances(image, np.zeros((24, 40), int))
    low, high = np.percentile(np.stack(3 * [image]), (1, 99.8))
    expected = 255 * np.clip((image - low) / (high - low), 0, 1)
    np.testing.assert_allclose(picture, np.repeat(expected[..., None], 3, -1), atol=0.51)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_overlay_of_a_constant_image_is_black(value):
    assert overlay_instances(np.full((9, 9), value, "uint16"), np.zeros((9, 9), int)).max() == 0


def test_sparse_image_is_not_lost():
    image = np.zeros((100, 100))
    image[5, 5] = 3.0  # above the percentile 99.8
    assert overlay_instances(image, np.zeros((100, 100), int)).max() == 255


def test_overlay_mixes_inside_and_is_opaque_on_inner_boundaries():
    rng = np.random.default_rng(0)
    image, labels = rng.uniform(size=(24, 40, 3)), squares()
    plain = overlay_instances(image, np.zeros_like(labels)).astype(float)
    full = overlay_instances(image, labels, alpha=1.0).astype(float)
    none = overlay_instances(image, labels, alpha=0.0).astype(float)
    half = overlay_instances(image, labels, alpha=0.4).astype(float)
    boundary = np.zeros(labels.shape, bool)
    for r, c in np.argwhere(labels):
        around = labels[r - 1 : r + 2, max(c - 1, 0) : c + 2]
        cross = [around[0, 1], around[2, 1], around[1, 0], around[1, 2]]
        boundary[r, c] = any(other != labels[r, c] for other in cross)
    np.testing.assert_array_equal(full[labels == 0], plain[labels == 0])
    for k in (1, 2, 3):
        assert len(np.unique(full[labels == k], axis=0)) == 1
    inside = (labels > 0) & ~boundary
    np.testing.assert_array_equal(none[inside], plain[inside])
    np.testing.assert_allclose(half[inside], 0.6 * plain[inside] + 0.4 * full[inside], atol=1.1)
    np.testing.assert_array_equal(none[boundary], full[boundary])
    np.testing.assert_array_equal(half[boundary], full[boundary])


def test_neighbouring_ids_look_different():
    labels = np.repeat(np.arange(1, 401).reshape(20, 20), 8, axis=1)
    picture = overlay_instances(np.zeros((20, 160)), labels, alpha=1.0)
    colors = picture[labels == labels][::8].astype(float)
    for step in (1, 2):
        assert min(np.abs(b - a).max() for a, b in zip(colors, colors[step:])) > 60
    assert len({tuple(color) for color in colors}) > 300


def test_color_depends_on_the_id_alone():
    one, two = np.zeros((8, 8), int), np.zeros((8, 8), int)
    one[2:5, 2:5], two[2:5, 2:5], two[6, 6] = 2**31 - 1, 2**31 - 1, 4
    a, b = (overlay_instances(np.zeros((8, 8)), labels) for labels in (one, two))
    np.testing.assert_array_equal(a[2:5, 2:5], b[2:5, 2:5])


@pytest.mark.parametrize(
    ("labels", "alpha", "word"),
    [
        (np.zeros((8, 9), int), 0.4, "labels"),
        (np.zeros((8, 8)), 0.4, "labels"),
        (np.zeros((8, 8, 1), int), 0.4, "labels"),
        (np.zeros((8, 8), int), 1.1, "alpha"),
        (np.zeros((8, 8), int), float("nan"), "alpha"),
    ],
)
def test_overlay_refuses(labels, alpha, word):
    with pytest.raises(ValueError, match=f"`{word}`.*Received"):
        overlay_instances(np.zeros((8, 8)), labels, alpha)


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


@pytest.mark.parametrize(("dim", "embed_background"), [(2, True), (6, True), (6, False)])
def test_loops_side_by_side(dim, embed_background):
    model = InstanceSegmenter(
        unet_encoder((8, 16), blocks=1), embedding_dim=dim, iterations=2, fusion_filters=8,
        inference_iterations=3, embed_background=embed_background,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 255, (19, 30, 3), "uint8")
    picture = embedding_loops(model, image, titles=False)
    assert picture.shape == (19, 5 * 30 + 4 * 6, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(
        picture[:, :30], overlay_instances(image, np.zeros((19, 30), int))
    )
    embedding, scores = map(np.asarray, model.embed(image[None].astype("float32")))
    loops = np.asarray(model.shift(embedding, scores, return_sequences=True))
    shown = scores[0, 1::2, 1::2] >= (-1 if embed_background else 0.5)
    maps = embedding_colors(*(x * shown for x in (embedding[0], *loops[:, 0])))
    for index, colors in enumerate(maps, start=1):
        part = picture[:, 36 * index : 36 * index + 30]
        np.testing.assert_array_equal(part, colors.repeat(2, 0).repeat(2, 1)[:19, :30])
        assert (picture[:, 36 * index - 6 : 36 * index] == 255).all()
    titled = embedding_loops(model, image)
    assert titled.shape[0] > 19
    np.testing.assert_array_equal(titled[-19:], picture)
    assert titled[:-19].min() < 128


def test_loops_refuse_a_stack():
    model = InstanceSegmenter(unet_encoder((8, 16), blocks=1), embedding_dim=4, iterations=1)
    with pytest.raises(ValueError, match="`image`"):
        embedding_loops(model, np.zeros((3, 32, 32, 3)))


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
