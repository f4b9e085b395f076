import numpy as np
import pytest

from keras_rpe.visualization import overlay_instances


def squares() -> np.ndarray:
    labels = np.zeros((24, 40), "int32")
    for k in range(3):
        labels[4:16, 2 + 12 * k : 14 + 12 * k] = k + 1
    return labels


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((24, 40), "bool"), ((24, 40, 1), "uint8"), ((24, 40, 3), "uint16"), ((24, 40, 4), "float64")],
)
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


def test_sparse_image_is_not_lost():
    image = np.zeros((100, 100))
    image[5, 5] = 3.0  # above the percentile 99.8
    assert overlay_instances(image, np.zeros((100, 100), int)).max() == 255
    assert overlay_instances(np.full((9, 9), 65535, "uint16"), np.zeros((9, 9), int)).max() == 0


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


def test_neighboring_ids_look_different():
    labels = np.repeat(np.arange(1, 401).reshape(20, 20), 8, axis=1)
    picture = overlay_instances(np.zeros((20, 160)), labels, alpha=1.0)
    colors = picture[labels == labels][::8].astype(float)
    for step in (1, 2):
        assert min(np.abs(b - a).max() for a, b in zip(colors, colors[step:])) > 60
    assert len({tuple(color) for color in colors}) > 300


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
