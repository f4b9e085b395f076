import keras
import numpy as np
import pytest
from harness import run_layer_test

from keras_rpe.layers import ObjectSize


def test_harness(tmp_path) -> None:
    features = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype("float32")
    run_layer_test(ObjectSize, {"filters": 8}, features, tmp_path)


@pytest.fixture
def layer() -> ObjectSize:
    layer = ObjectSize(4)
    layer.build((None, None, None, 3))
    return layer


def test_the_diameter_of_training_is_followed(layer) -> None:
    layer.update(np.zeros((2, 3, 3)))
    assert float(layer.log_diameter) == 0  # Not known yet.
    layer.update(np.array([[[5.0, 3.0, 0.0, -1.0]]]))
    assert float(layer.log_diameter) == pytest.approx(4)  # Of those that are known.
    layer.update(np.full((1, 2, 2), 6.0))
    assert float(layer.log_diameter) == pytest.approx(4.02)


def octaves(layer: ObjectSize, log2: list, logits: list, steps: list, real=None) -> np.ndarray:
    """For one image and as many views as there are lists, of one row of cells."""
    sizes = np.stack([log2, logits], -1).astype("float32")[:, None]
    real = np.ones(sizes.shape[:-1], bool) if real is None else np.array(real)[:, None]
    return np.asarray(layer.octaves(sizes, np.array(steps, "float32")[:, None], real))[0]


def test_images_are_resized_to_the_diameter_of_training(layer) -> None:
    sure, unsure = 20.0, -20.0
    assert octaves(layer, [[5.0]], [[sure]], [1.0]) == 0  # Without training, as they are.
    layer.log_diameter.assign(4.0)
    # Objects of 32 pixels are made half as large; in a view of a fourth they have 8 pixels.
    assert octaves(layer, [[5.0], [3.0]], [[sure], [sure]], [1.0, 4.0]) == pytest.approx(-1)
    assert octaves(layer, [[3.5, 9.0]], [[sure, unsure]], [1.0]) == pytest.approx(0.5, abs=1e-4)
    assert octaves(layer, [[3.5, 9.0]], [[sure, sure]], [1.0], [[True, False]]) == 0.5
    # At most so many times, and nothing without an object.
    assert octaves(layer, [[9.0]], [[sure]], [1.0]) == -4
    assert octaves(layer, [[1.0]], [[sure]], [1.0]) == 2
    assert octaves(layer, [[99.0]], [[sure]], [1.0]) == 0
    assert octaves(layer, [[8.0]], [[unsure]], [1.0]) == 0
    # Diameters that are far from those of training count for little.
    assert octaves(layer, [[3.0, 7.0]], [[sure, sure]], [1.0]) == pytest.approx(0.98, abs=0.01)


def test_large_objects_do_not_outvote_small_ones_by_their_cells(layer) -> None:
    layer.log_diameter.assign(4.0)
    # Of objects of 11 and 23 pixels, the larger with twice the cells: a mean of all would be -0.17.
    assert octaves(layer, [[3.5, 4.5, 4.5]], [[20.0] * 3], [1.0]) == pytest.approx(-0.086, abs=1e-3)


def test_it_learns_diameters() -> None:
    from keras_rpe.losses import ObjectSizeLoss

    keras.utils.set_random_seed(0)
    truth = np.random.default_rng(0).uniform(3, 6, (64, 4, 4)).astype("float32")
    truth[:, 0] = 0
    features = np.stack([truth, truth > 0], -1).astype("float32")
    model = keras.Sequential([keras.Input((4, 4, 2)), ObjectSize(32)])
    model.compile(keras.optimizers.Adam(0.01), ObjectSizeLoss())
    model.fit(features, truth, epochs=60, verbose=0)
    found = model.predict(features, verbose=0)
    assert np.abs(found[..., 0] - truth)[truth > 0].mean() < 0.2
    assert ((found[..., 1] > 0) == (truth > 0)).mean() > 0.99
