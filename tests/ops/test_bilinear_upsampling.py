import keras
import numpy as np
import pytest

from keras_rpe.ops.maps import upsample_bilinear

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 4, 1), (1, 1, 1, 2)])
def test_equals_resizing(factor: int, shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=shape).astype("float32")
    size = (shape[1] * factor, shape[2] * factor)
    expected = keras.ops.image.resize(x, size, interpolation="bilinear", antialias=False)
    np.testing.assert_allclose(upsample_bilinear(x, factor), expected, atol=1e-5)


def test_a_level_map_stays_level() -> None:
    x = np.full((1, 3, 4, 2), 0.75, "float32")
    np.testing.assert_allclose(upsample_bilinear(x, 8), np.full((1, 24, 32, 2), 0.75), rtol=1e-6)
