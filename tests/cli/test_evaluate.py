import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from bsds500_files import add
from command_line import assert_one_line_error, bad_image

from keras_rpe.data import read_boundaries, read_image, read_labels
from keras_rpe.metrics import boundary_benchmark, matching_dataset


def test_figures_are_pooled_over_the_images(run, labelled, tiny_model, tiny_preset, tmp_path):
    (tmp_path / "names.txt").write_text("b\n\nd\n")
    outcome = run(
        "evaluate", labelled, "--preset", tiny_preset, "--names", tmp_path / "names.txt",
        "--threshold", "0.75", "--threshold", "0.1", "--json", tmp_path / "figures.json",
    )  # fmt: skip
    assert outcome.code == 0
    assert outcome.err == ""
    figures = json.loads((tmp_path / "figures.json").read_text())
    true = [read_labels(labelled / "instances" / f"{n}.png") for n in "bd"]
    pred = [
        tiny_model.predict_instances(read_image(labelled / "images" / f"{n}.png")).labels
        for n in "bd"
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
    bad_image(labelled / "images", "nan.tif").rename(labelled / "images" / "a.tif")
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
        (["--task", "boundaries"], "must be of class BoundaryDetector"),
        (["--split", "val"], "--split does not go with a model for instances"),
        (["--scales", "1,2"], "--scales does not go with a model for instances"),
        (["--diameter", "large"], "--diameter needs auto or a number of pixels. Received: large"),
    ):
        assert_one_line_error(run("evaluate", labelled, "--preset", tiny_preset, *options), part)


@pytest.fixture
def bsds(tmp_path: Path) -> Path:
    """Two images of four and two annotators to validate with, one to test with."""
    folder = tmp_path / "bsds"
    add(folder, "plane", "val", 4)
    add(folder, "boat", "val", 2, height=30, width=36)
    add(folder, "tree", "test", 1)
    return folder


def test_boundary_figures_are_those_of_the_benchmark(
    run, bsds, tiny_detector, boundary_preset, tmp_path
):
    cuts = (0.6, 0.3, 0.45)
    options = [word for cut in cuts for word in ("--threshold", cut)]
    file = tmp_path / "figures.json"
    outcome = run("evaluate", bsds, "--preset", boundary_preset, *options, "--json", file)
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(file.read_text())
    images = [read_image(bsds / "images" / "val" / f"{name}.png") for name in ("boat", "plane")]
    truths = [
        [one.boundaries for one in read_boundaries(bsds / "groundTruth" / "val" / f"{name}.mat")]
        for name in ("boat", "plane")
    ]
    maps = [tiny_detector.predict_boundaries(image).thinned for image in images]
    expected = boundary_benchmark(maps, truths, thresholds=sorted(cuts), processes=1)
    assert (found["images"], found["annotations"]) == (2, 6)
    assert expected.ods > 0
    names = [name for name in found if name.startswith(("ods", "ois", "ap"))]
    assert len(names) == 8
    for name in names:
        np.testing.assert_allclose(found[name], getattr(expected, name), atol=1e-6)
    for key, values in (
        ("threshold", sorted(cuts)),
        ("precision", expected.precision),
        ("recall", expected.recall),
    ):
        np.testing.assert_allclose([row[key] for row in found["thresholds"]], values, atol=1e-6)
    rows = {words[0]: words for words in map(str.split, outcome.out.splitlines()) if len(words) > 1}
    assert f"{expected.ods:.3f}" in rows["ODS"]
    assert f"{expected.ods_threshold:.3f}" in rows["ODS"]
    assert f"{expected.ois_recall:.3f}" in rows["OIS"]
    assert f"{expected.ap:.3f}" in rows["AP"]
    assert "images 2, annotations 6, thresholds 3" in outcome.out


def test_split_names_and_default_thresholds(run, bsds, boundary_preset, tmp_path):
    (tmp_path / "names.txt").write_text("tree\n")
    command = ("evaluate", bsds, "--preset", boundary_preset, "--task", "boundaries")
    options = ("--split", "test", "--names", tmp_path / "names.txt")
    outcome = run(*command, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert "images 1, annotations 1, thresholds 99" in outcome.out
    assert_one_line_error(run(*command, *options[2:]), "names", "'tree'")


def test_boundaries_of_several_scales_have_other_figures(run, bsds, boundary_preset, tmp_path):
    file, found = tmp_path / "figures.json", []
    command = ("evaluate", bsds, "--preset", boundary_preset, "--threshold", "0.4", "--json", file)
    for options in ((), ("--scales", "1"), ("--scales", "0.5,1,1.5")):
        outcome = run(*command, *options)
        assert (outcome.code, outcome.err) == (0, "")
        found.append(json.loads(file.read_text())["ods_precision"])
    assert found[0] == found[1] != found[2]


def test_all_bad_files_are_named_before_the_first_is_done(run, bsds, boundary_preset, tmp_path):
    (bsds / "images" / "val" / "boat.png").write_bytes(b"no image")
    (bsds / "groundTruth" / "val" / "plane.mat").write_bytes(b"no annotations")
    outcome = run("evaluate", bsds, "--preset", boundary_preset, "--json", tmp_path / "f.json")
    assert_one_line_error(outcome, "2 of 2 images", "boat.png", "plane.mat")
    assert not (tmp_path / "f.json").exists()


def test_bad_options_for_boundaries(run, bsds, boundary_preset):
    for options, part in (
        (["--threshold", "1.5"], "threshold"),
        (["--split", "train"], "train"),
        (["--instances", "masks/*"], "--instances does not go with a model for boundaries"),
        (["--diameter", "30"], "--diameter does not go with a model for boundaries"),
        (["--task", "instances"], "must be of class InstanceSegmenter"),
    ):
        assert_one_line_error(run("evaluate", bsds, "--preset", boundary_preset, *options), part)
