import re
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_one_line_error

from keras_rpe.data import write_image
from keras_rpe.models import BoundaryDetector


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def labels_file(exported) -> Path:
    return exported[0]


@pytest.fixture(scope="module")
def boundaries_file(boundary_preset, folder) -> Path:
    model = BoundaryDetector.from_preset(boundary_preset)
    return model.export(folder / "lines.tflite", format="litert")


@pytest.fixture(scope="module")
def image(folder) -> Path:
    coarse = np.random.default_rng(0).integers(0, 255, (6, 7, 3))
    write_image(folder / "a.png", np.kron(coarse, np.ones((8, 8, 1))).astype("uint8"))
    return folder / "a.png"


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("labels", "labels are identical\n"),
        ("boundaries", r"boundaries differ by at most (0|\d\.?\d*e-0[5-9])\n"),
    ],
)
def test_the_same_model(run, image, request, kind, sentence):
    outcome = run("serve-check", request.getfixturevalue(f"{kind}_file"), image, "--runs", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert "56 x 48 pixels" in outcome.out
    assert re.search(sentence, outcome.out)
    assert re.findall(r"\b[01]\.\d{4}\b", outcome.out) == ["1.0000"]


def test_diameter_goes_to_both_models(run, boundaries_file, image):
    nuclei = Path(__file__).parents[2] / "saved_models" / "nuclei.tflite"
    outcome = run("serve-check", nuclei, image, "--diameter", 12, "--runs", 1)
    assert (outcome.code, outcome.err) == (0, "")
    for file, value in ((nuclei, "small"), (boundaries_file, 12)):
        outcome = run("serve-check", file, image, "--diameter", value)
        assert_one_line_error(outcome, "--diameter")


def test_another_model_does_not_agree(run, labels_file, image):
    outcome = run("serve-check", labels_file, image, "--preset", "nuclei", "--runs", 1)
    assert outcome.code == 1
    assert "below --least-iou" in outcome.err


@pytest.mark.slow
def test_models_of_two_tasks(
    run, labels_file, boundaries_file, image, tiny_preset, boundary_preset
):
    for file, preset, part in (
        (boundaries_file, tiny_preset, "no labels"),
        (labels_file, boundary_preset, "no boundaries"),
    ):
        outcome = run("serve-check", file, image, "--preset", preset, "--runs", 1)
        assert_one_line_error(outcome, str(file), part)


def test_exports_that_cannot_be_checked(run, image, tmp_path):
    for words, part in (
        ((tmp_path / "none", image), "none"),
        (("http://localhost:9/v1/models/x", image, "--preset", "nuclei"), "localhost:9"),
    ):
        assert_one_line_error(run("serve-check", *words), part)
