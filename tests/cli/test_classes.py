import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import assert_one_line_error, bad_image

from keras_rpe.data import read_image, read_labels, write_labels
from keras_rpe.metrics import Detections, GroundTruth, MaskAveragePrecision, class_iou
from keras_rpe.models import InstanceSegmenter, SemanticSegmenter
from keras_rpe.models.backbones import unet_encoder

NAMES = ("square", "round", "long")


@pytest.fixture(scope="module")
def semantic() -> SemanticSegmenter:
    keras.utils.set_random_seed(2)
    return SemanticSegmenter(
        unet_encoder((8, 16), blocks=1),
        embedding_dim=4,
        num_classes=3,
        class_names=NAMES,
        fusion_filters=8,
    )


@pytest.fixture(scope="module")
def semantic_preset(semantic: SemanticSegmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("semantic_presets") / "kinds"
    semantic.save_to_preset(folder)
    return folder


@pytest.fixture
def classified(labelled: Path) -> Path:
    """The labelled images with classes: 1 for the first square, 3 for the other, and some void."""
    (labelled / "semantic").mkdir()
    for name in "abcd":
        instances = read_labels(labelled / "instances" / f"{name}.png")
        maps = np.select([instances == 1, instances == 300], [1, 3])
        maps[0] = 255
        write_labels(labelled / "semantic" / f"{name}.png", maps)
    return labelled


def test_files_hold_the_classes(run, classified, semantic, semantic_preset, tmp_path):
    out = tmp_path / "out"
    bad = bad_image(classified / "images", "text.png")
    outcome = run("classes", classified / "images", "--preset", semantic_preset, "--out", out)
    assert_one_line_error(outcome, str(bad))
    assert {path.name for path in out.iterdir()} == {
        "classes.csv",
        *(f"{name}_{kind}" for name in "abcd" for kind in ("classes.png", "overlay.png")),
    }
    with (out / "classes.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for name in "abcd":
        image = read_image(classified / "images" / f"{name}.png")
        found = semantic.predict_classes(image)
        np.testing.assert_array_equal(read_labels(out / f"{name}_classes.png"), found.classes)
        listed = [row for row in rows if row["image"] == f"{name}.png"]
        areas = {["background", *NAMES][label]: area for label, area in found.areas.items()}
        assert {row["class"]: int(row["area_px"]) for row in listed} == areas
        assert read_image(out / f"{name}_overlay.png").shape == image.shape


def test_figures_of_classes(run, classified, semantic, semantic_preset, tmp_path):
    command = ("evaluate", classified, "--preset", semantic_preset, "--json", tmp_path / "f.json")
    outcome = run(*command, "--ignore-label", 255)
    assert outcome.code == 0, outcome.err
    truths = [read_labels(classified / "semantic" / f"{name}.png") for name in "abcd"]
    images = [read_image(classified / "images" / f"{name}.png") for name in "abcd"]
    found = [semantic.predict_classes(image).classes for image in images]
    expected = class_iou(truths, found, 4, 255)
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["classes"] == {
        ["background", *NAMES][label]: expected[label] for label in expected
    }
    assert figures["mean_iou"] == pytest.approx(np.mean(list(expected.values())))
    assert f"{figures['mean_iou']:.3f}" in outcome.out
    assert_one_line_error(run(*command, "--threshold", 0.5), "--threshold", "classes")
    assert_one_line_error(run(*command), "labels from 0 to 3", "255")
    assert_one_line_error(run(*command, "--classes", "kinds/*"), "kinds/*")


def test_figures_of_instances_with_classes(run, classified, tmp_path):
    keras.utils.set_random_seed(1)
    model = InstanceSegmenter(
        unet_encoder((8, 16), blocks=1),
        embedding_dim=4,
        num_classes=3,
        iterations=1,
        fusion_filters=8,
        find_diameter=False,
        inference_seeds=None,
    )
    model.get_layer("classes").bias.assign([0.0, 3.0, 0.0, 3.0])
    model.save_to_preset(tmp_path / "preset")
    command = ("evaluate", classified, "--preset", tmp_path / "preset", "--ignore-label", 255)
    outcome = run(*command, "--classes", "semantic/*", "--json", tmp_path / "f.json")
    assert outcome.code == 0, outcome.err
    expected = MaskAveragePrecision("voc")
    for name in "abcd":
        found = model.predict_instances(read_image(classified / "images" / f"{name}.png"))
        labels = np.zeros((32, 40), "int32")
        labels[4:14, 5:15], labels[16:28, 20:34] = 1, 2
        labels[0] = 255
        truth = GroundTruth(labels, [1, 3], ignore_label=255)
        expected.update_state(truth, Detections(found.labels, found.scores, found.classes))
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["mean"] == expected.result()
    assert figures["intervals"]["AP50"] == list(expected.interval()["AP50"])
    assert set(figures["classes"]) == {"1", "3"}
    assert "95 % of draws of the images" in outcome.out
