import re

import numpy as np
import pytest
from cli_outcome import assert_one_line_error

from keras_rpe.data import write_image
from keras_rpe.models import BoundaryDetector, InstanceSegmenter


@pytest.fixture(scope="module")
def exported(tiny_preset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = InstanceSegmenter.from_preset(tiny_preset)
    model.export(folder / "tiny")
    model.export(folder / "tiny.tflite", format="litert")
    return folder


@pytest.fixture
def image(tmp_path):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (6, 7, 3))
    write_image(tmp_path / "a.png", np.kron(coarse, np.ones((8, 8, 1))).astype("uint8"))
    return tmp_path / "a.png"


@pytest.mark.parametrize("name", ["tiny", "tiny.tflite"])
def test_same_labels(run, exported, image, name):
    outcome = run("serve-check", exported / name, image, "--runs", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert "56 x 48 pixels" in outcome.out
    assert "labels are identical" in outcome.out
    agreements = re.findall(r"\b[01]\.\d{4}\b", outcome.out)
    assert agreements == ["1.0000"]


def test_another_model_does_not_agree(run, exported, image):
    outcome = run("serve-check", exported / "tiny", image, "--preset", "nuclei", "--runs", 1)
    assert outcome.code == 1
    assert "below --least-iou" in outcome.err


@pytest.fixture(scope="module")
def exported_detector(boundary_preset, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported_detector") / "lines.tflite"
    return BoundaryDetector.from_preset(boundary_preset).export(path, format="litert")


def test_same_boundaries(run, exported_detector, image):
    outcome = run("serve-check", exported_detector, image, "--runs", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert "56 x 48 pixels" in outcome.out
    assert re.search(r"differ by at most (0|\d\.?\d*e-0[5-9])\n", outcome.out)
    assert re.findall(r"\b[01]\.\d{4}\b", outcome.out) == ["1.0000"]


@pytest.mark.slow
def test_models_of_two_tasks(run, exported, exported_detector, image, tiny_preset, boundary_preset):
    file = exported / "tiny.tflite"
    outcome = run("serve-check", exported_detector, image, "--preset", tiny_preset, "--runs", 1)
    assert_one_line_error(outcome, str(exported_detector), "no labels")
    outcome = run("serve-check", file, image, "--preset", boundary_preset, "--runs", 1)
    assert_one_line_error(outcome, str(file), "no boundaries")


def test_exports_that_cannot_be_checked(run, image, tmp_path):
    for words, part in (
        ((tmp_path / "none", image), "none"),
        (("http://localhost:9/v1/models/x", image, "--preset", "nuclei"), "localhost:9"),
    ):
        assert_one_line_error(run("serve-check", *words), part)
