import re

import numpy as np
import pytest
from cli_outcome import assert_one_line_error

from keras_rpe.data import write_image
from keras_rpe.models import BoundaryDetector, InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder


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


@pytest.mark.parametrize("name", ["tiny", "tiny/1", "tiny.tflite"])
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


def test_unknown_source(run, exported, image, tmp_path):
    from keras_rpe.export.litert import convert

    path = tmp_path / "anonymous.tflite"
    path.write_bytes(convert(InstanceSegmenter("unet_small", embedding_dim=4, iterations=1)))
    outcome = run("serve-check", path, image)
    assert_one_line_error(outcome, "give --preset or --model")


def test_nothing_there(run, image, tmp_path):
    assert_one_line_error(run("serve-check", tmp_path / "none", image), "none")


def test_server_that_is_not_there(run, image):
    outcome = run("serve-check", "http://localhost:9/v1/models/x", image, "--preset", "nuclei")
    assert_one_line_error(outcome, "localhost:9")


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


def test_boundaries_of_another_model_do_not_agree(run, exported_detector, image, tmp_path):
    options = ("--runs", 1, "--least-iou", 0.99)
    other = BoundaryDetector(unet_encoder((8, 16), blocks=1), fusion_filters=8)
    other.save_to_preset(tmp_path / "other")
    preset = tmp_path / "other"
    outcome = run("serve-check", exported_detector, image, "--preset", preset, *options)
    assert outcome.code == 1
    assert "below --least-iou" in outcome.err


def test_models_of_two_tasks(run, exported, exported_detector, image, tiny_preset, boundary_preset):
    file = exported / "tiny.tflite"
    outcome = run("serve-check", exported_detector, image, "--preset", tiny_preset, "--runs", 1)
    assert_one_line_error(outcome, str(exported_detector), "no labels")
    outcome = run("serve-check", file, image, "--preset", boundary_preset, "--runs", 1)
    assert_one_line_error(outcome, str(file), "no boundaries")
