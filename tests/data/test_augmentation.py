import numpy as np
import pytest

from keras_rpe.data.augmentation import recolored, shaded


@pytest.mark.parametrize(("change", "low", "high"), [(shaded, -5, 8), (recolored, 0, 255)])
def test_colors_change_within_the_range_of_the_image(change, low, high):
    blocks = np.random.default_rng(0).uniform(low, high, (8, 6, 3))
    image = blocks.repeat(6, axis=0).repeat(6, axis=1).astype("float32")
    given = image.copy()
    results = [change(image, np.random.default_rng(seed)) for seed in range(8)]
    np.testing.assert_array_equal(image, given)
    slack = 1e-4 * (high - low)
    for result in results:
        assert (result.dtype, result.shape) == (np.float32, image.shape)
        assert np.isfinite(result).all()
        assert result.min() >= min(low, 0) - slack
        assert result.max() <= high + slack
        assert np.corrcoef(result.ravel(), image.ravel())[0, 1] > 0.7
        assert not np.allclose(result, image, atol=slack)
    assert len({float(result.mean()) for result in results}) == 8
    np.testing.assert_array_equal(change(image, np.random.default_rng(3)), results[3])


@pytest.mark.parametrize("change", [shaded, recolored])
@pytest.mark.parametrize("value", [0, 100])
def test_gray_stays_gray_and_even_stays_finite(change, value):
    even = np.full((9, 8, 3), value, "float32")
    assert np.isfinite(change(even, np.random.default_rng(0))).all()
    gray = np.repeat(np.random.default_rng(0).uniform(0, 255, (9, 8, 1)), 3, -1).astype("float32")
    assert np.ptp(change(gray, np.random.default_rng(1)), axis=-1).max() < 1e-2


def test_saturation_goes_up_and_down():
    image = np.broadcast_to(np.array([180.0, 120, 90], "float32"), (4, 4, 3))
    depth = [np.ptp(recolored(image, np.random.default_rng(seed))[0, 0]) for seed in range(30)]
    assert min(depth) < 70
    assert max(depth) > 120
