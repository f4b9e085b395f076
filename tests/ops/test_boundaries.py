import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from keras_rpe.ops import thin_boundaries

RNG = np.random.default_rng(0)


def thin(map_: np.ndarray, **kwargs) -> np.ndarray:
    return np.asarray(thin_boundaries(map_[None].astype("float32"), **kwargs))[0]


def stripe(angle: float, size: int = 61, width: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """A soft line through the middle, and the distance of each pixel from it."""
    rows, columns = np.mgrid[:size, :size] - size // 2
    distance = columns * np.sin(angle) - rows * np.cos(angle)
    return np.exp(-0.5 * (distance / width) ** 2), distance


def slow_thinning(map_: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """How much higher a neighbour across each pixel is, and how sure that direction is."""
    triangle = np.convolve(np.ones(radius + 1), np.ones(radius + 1)) / (radius + 1) ** 2
    smooth = map_
    for axis in (0, 1):
        smooth = ndimage.correlate1d(smooth, triangle, axis, mode="nearest")
    hessian = np.empty((*map_.shape, 2, 2))
    hessian[..., 0, 0] = ndimage.correlate1d(smooth, [1, -2, 1], 0, mode="nearest")
    hessian[..., 1, 1] = ndimage.correlate1d(smooth, [1, -2, 1], 1, mode="nearest")
    corners = np.array([[1, 0, -1], [0, 0, 0], [-1, 0, 1]]) / 4
    twist = ndimage.correlate(smooth, corners, mode="nearest")
    hessian[..., 0, 1] = hessian[..., 1, 0] = twist
    values, vectors = np.linalg.eigh(hessian)
    amounts = np.abs(values)
    upper = amounts[..., 1] > amounts[..., 0]
    step = np.moveaxis(np.where(upper[..., None], vectors[..., 1], vectors[..., 0]), -1, 0)
    place = np.mgrid[: map_.shape[0], : map_.shape[1]]
    sides = [
        ndimage.map_coordinates(map_, place + sign * step, order=1, mode="nearest")
        for sign in (1, -1)
    ]
    return np.maximum(*sides) / map_, np.abs(amounts[..., 1] - amounts[..., 0])


@pytest.mark.parametrize("radius", [0, 4])
def test_equals_numpy(radius: int) -> None:
    map_ = ndimage.gaussian_filter(RNG.random((40, 53)), 1.0)
    ratio, gap = slow_thinning(map_, radius)
    kept = thin(map_, radius=radius) > 0
    # Where float32 may decide otherwise, it need not agree.
    sure = (np.abs(ratio - 1.01) > 1e-4) & (gap > 1e-4)
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(kept[sure], (ratio <= 1.01)[sure])
    np.testing.assert_array_equal(thin(map_, radius=radius)[kept], map_.astype("float32")[kept])


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 5, endpoint=False))
def test_lines_of_all_directions_stay_whole_and_become_thin(angle: float) -> None:
    map_, distance = stripe(angle)
    kept = thin(map_) > 0
    inner = np.zeros_like(kept)
    inner[8:-8, 8:-8] = True
    line = kept & inner & (map_ > 0.1)
    assert np.abs(distance[line]).max() <= 1.0
    across = max(np.abs(np.sin(angle)), np.abs(np.cos(angle)))
    length = 45 / across
    assert 0.7 * length <= line.sum() <= 2.0 * length
    assert ndimage.label(line, np.ones((3, 3)))[1] == 1


def test_level_maps_and_tiny_ones_stay() -> None:
    for shape in ((1, 1), (1, 7), (3, 2), (9, 9)):
        level = np.full(shape, 0.5)
        np.testing.assert_allclose(thin(level), level, rtol=1e-6)
        assert not thin(np.zeros(shape)).any()


def test_border_fades() -> None:
    result = thin(np.ones((12, 30)), border=4)
    np.testing.assert_allclose(result[:6, 15], [0, 0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(result[6, -5:], [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_array_equal(result, result[::-1, ::-1])


def test_dynamic_sizes_in_a_graph() -> None:
    graph = tf.function(
        thin_boundaries, input_signature=[tf.TensorSpec((None, None, None), "float32")]
    )
    for shape in ((2, 9, 17), (1, 33, 8)):
        maps = RNG.random(shape).astype("float32")
        np.testing.assert_allclose(graph(maps), thin_boundaries(maps), atol=1e-6)
    assert graph.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("wrong", [{"radius": -1}, {"border": -1}, {"tolerance": 1.0}])
def test_wrong_arguments(wrong: dict) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"`{name}` must .* Received: {name}={value}"):
        thin_boundaries(np.zeros((1, 4, 4), "float32"), **wrong)
    with pytest.raises(ValueError, match="`boundaries` must be of shape"):
        thin_boundaries(np.zeros((4, 4), "float32"))
