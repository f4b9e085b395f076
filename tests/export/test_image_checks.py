import numpy as np
import pytest
import tensorflow as tf

from keras_rpe.export.saved_model import checked_images, write_signatures

DTYPES = ("uint8", "float32")


@pytest.fixture(scope="module")
def signatures(tmp_path_factory):
    """As a server has it: a loaded signature does not look at the shape of what it is given."""
    folder = str(tmp_path_factory.mktemp("checks") / "1")
    specs = {name: tf.TensorSpec((None, None, None, 3), name, name="image") for name in DTYPES}
    write_signatures(
        {name: (lambda image: {"out": checked_images(image, 1000)}, specs[name]) for name in specs},
        folder,
    )
    return tf.saved_model.load(folder).signatures


@pytest.fixture
def check(signatures):
    return lambda images: signatures[images.dtype.name](image=tf.constant(images))["out"]


def test_good_images_pass(check):
    images = np.random.default_rng(0).integers(0, 255, (2, 20, 25, 3), dtype="uint8")
    np.testing.assert_array_equal(check(images), images)


@pytest.mark.parametrize("shape", [(0, 20, 20, 3), (20, 20, 3), (20, 20), (1, 20, 20, 4)])
def test_shape_must_be_that_of_a_batch(check, shape):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be of shape \(batch, height"):
        check(np.zeros(shape, "uint8"))


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 7, 20, 3), (1, 20, 7, 3), (3, 20, 20, 3)])
def test_size_must_be_within_bounds(check, shape):
    message = f"Received: batch={shape[0]}, height={shape[1]}, width={shape[2]}"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        check(np.zeros(shape, "uint8"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_must_be_finite(check, value):
    images = np.zeros((1, 9, 9, 3), "float32")
    check(images)
    images[0, 3, 4, 1] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match="`image` must be finite"):
        check(images)
