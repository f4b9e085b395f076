"""The boundary detector that comes with the package, and its exports."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from skimage import data

from keras_rpe.data import find_boundary_pairs, read_image
from keras_rpe.data.bsds import read_boundary_pair
from keras_rpe.metrics import boundary_benchmark
from keras_rpe.models import BoundaryDetector
from keras_rpe.models.presets import preset_folder

MOST_BYTES = 30e6


@pytest.fixture(scope="module")
def boundaries() -> BoundaryDetector:
    return BoundaryDetector.from_preset("boundaries")


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Photographs of two sizes, none of which is a whole number of strides."""
    return [data.astronaut()[:203, 150:391], data.chelsea()[20:231, 60:363]]


def test_it_is_small() -> None:
    files = Path(preset_folder("boundaries")).iterdir()
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES


def test_the_rim_of_a_cup(boundaries: BoundaryDetector) -> None:
    """The cup's saucer on the table is a boundary; the table beside it is none."""
    found = boundaries.predict_boundaries(data.coffee()).probabilities
    assert found.shape == (400, 600)
    # Each column through the saucer's lower rim, and the empty table at the lower right.
    assert np.median(found[300:395, 250:350].max(axis=0)) > 0.6
    assert np.median(found[340:395, 520:595]) < 0.1


def test_on_photographs_that_it_was_trained_on(boundaries, data_root) -> None:
    pairs = find_boundary_pairs(data_root / "bsds500", "val")[:2]
    maps = [boundaries.predict_boundaries(read_image(pair.image)).thinned for pair in pairs]
    truths = [[one.boundaries for one in read_boundary_pair(pair)[1]] for pair in pairs]
    figures = boundary_benchmark(maps, truths, thresholds=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert figures.ods > 0.7


@pytest.mark.slow
def test_exports_equal_keras(boundaries, photographs, tmp_path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    folder = boundaries.export(tmp_path / "boundaries")
    served = tf.saved_model.load(folder).signatures["serving_default"]
    file = boundaries.export(tmp_path / "boundaries.tflite", format="litert")
    detect = Interpreter(str(file)).get_signature_runner("serving_default")
    for image in photographs:
        expected = boundaries.predict_boundaries(image).probabilities
        for result in (served(image=tf.constant(image[None])), detect(image=image[None])):
            np.testing.assert_allclose(result["boundaries"][0], expected, atol=1e-4)
