import numpy as np
import pytest
from harness import run_layer_test

from keras_rpe.layers import BilinearUpsampling

RNG = np.random.default_rng(0)


def test_harness(tmp_path) -> None:
    maps = RNG.normal(size=(2, 5, 7, 2)).astype("float32")
    run_layer_test(BilinearUpsampling, {"factor": 4}, maps, tmp_path)


@pytest.mark.parametrize("factor", [0, 1.5, 2000])
def test_errors(factor: float) -> None:
    with pytest.raises(ValueError, match="`factor` must be an integer of at least 1"):
        BilinearUpsampling(factor)
