import json

import numpy as np
import pytest
import tifffile
from bad_images import BAD_IMAGES
from cli_outcome import assert_one_line_error

from keras_rpe.data import read_image, read_labels
from keras_rpe.metrics import matching_dataset
from keras_rpe.models import InstanceSegmenter


def test_figures_are_pooled_over_the_images(run, labelled, tiny_preset, tmp_path):
    (tmp_path / "names.txt").write_text("b\n\nd\n")
    outcome = run(
        "evaluate", labelled, "--preset", tiny_preset, "--names", tmp_path / "names.txt",
        "--threshold", "0.75", "--threshold", "0.1", "--json", tmp_path / "figures.json",
    )  # fmt: skip
    assert outcome.code == 0
    assert outcome.err == ""
    figures = json.loads((tmp_path / "figures.json").read_text())
    model = InstanceSegmenter.from_preset(tiny_preset)
    true = [read_labels(labelled / "instances" / f"{n}.png") for n in "bd"]
    pred = [
        model.predict_instances(read_image(labelled / "images" / f"{n}.png")).labels for n in "bd"
    ]
    expected = matching_dataset(true, pred, [0.1, 0.75])
    assert (figures["images"], figures["instances"]) == (2, 4)
    assert figures["predicted"] == expected[0].n_pred > 0
    assert figures["seconds_per_image"] > 0
    for found, m in zip(figures["thresholds"], expected, strict=True):
        assert found["iou"] == m.threshold
        assert (found["tp"], found["fp"], found["fn"]) == (m.tp, m.fp, m.fn)
        assert found["average_precision"] == m.average_precision
        assert found["panoptic_quality"] == m.panoptic_quality
        assert f"{m.panoptic_quality:.3f}" in outcome.out
    assert "images 2, instances 4" in outcome.out


def test_default_thresholds_and_globs(run, labelled, tiny_preset):
    (labelled / "instances").rename(labelled / "masks")
    outcome = run("evaluate", labelled, "--preset", tiny_preset, "--instances", "masks/*.png")
    assert outcome.code == 0
    for threshold in ("0.5", "0.6", "0.7", "0.8", "0.9"):
        assert f"\n{threshold} " in outcome.out


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_files_that_cannot_be_used(run, labelled, tiny_preset, tmp_path, command):
    result = tmp_path / ("figures.json" if command == "evaluate" else "run")
    option = "--json" if command == "evaluate" else "--out"
    words = ("--preset", tiny_preset, option, result)
    (tmp_path / "images").mkdir()
    assert_one_line_error(run(command, tmp_path, *words), "no image files")
    labels = labelled / "instances" / "b.png"
    labels.rename(labels.with_suffix(".old"))
    tifffile.imwrite(labels.with_suffix(".tif"), np.full((32, 40), 0.5, "float32"))
    assert_one_line_error(run(command, labelled, *words), "b.tif", "float32")
    labels.with_suffix(".tif").unlink()
    labels.with_suffix(".old").rename(labels)
    (labelled / "images" / "a.png").unlink()
    BAD_IMAGES["nan"](labelled / "images").rename(labelled / "images" / "a.tif")
    assert_one_line_error(run(command, labelled, *words), "a.tif")
    assert not result.exists()


def test_bad_options(run, labelled, tiny_preset, tmp_path):
    (tmp_path / "names.txt").write_text("a\nzebra\n")
    for options, part in (
        (["--threshold", "1.5"], "1.5"),
        (["--names", "missing.txt"], "missing.txt"),
        (["--names", tmp_path / "names.txt"], "zebra"),
        (["--json", "no/such/folder.json"], "--json"),
        (["--images", "scans/*"], "scans/*"),
    ):
        assert_one_line_error(run("evaluate", labelled, "--preset", tiny_preset, *options), part)
