import json
from pathlib import Path

import numpy as np
import pytest
from bsds500_files import add
from cli_outcome import assert_one_line_error

from keras_rpe.data import read_boundaries, read_image
from keras_rpe.metrics import boundary_benchmark
from keras_rpe.models import BoundaryDetector


@pytest.fixture
def bsds(tmp_path: Path) -> Path:
    """Two images of four and two annotators to validate with, one to test with."""
    folder = tmp_path / "bsds"
    add(folder, "plane", "val", 4)
    add(folder, "boat", "val", 2, height=30, width=36)
    add(folder, "tree", "test", 1)
    return folder


def test_figures_are_those_of_the_benchmark(run, bsds, boundary_preset, tmp_path):
    cuts = (0.6, 0.3, 0.45)
    options = [word for cut in cuts for word in ("--threshold", cut)]
    file = tmp_path / "figures.json"
    outcome = run("evaluate", bsds, "--preset", boundary_preset, *options, "--json", file)
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(file.read_text())
    model = BoundaryDetector.from_preset(boundary_preset)
    images = [read_image(bsds / "images" / "val" / f"{name}.png") for name in ("boat", "plane")]
    truths = [
        [one.boundaries for one in read_boundaries(bsds / "groundTruth" / "val" / f"{name}.mat")]
        for name in ("boat", "plane")
    ]
    maps = [model.predict_boundaries(image).thinned for image in images]
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
    rows = {words[1]: words for words in map(str.split, outcome.out.splitlines()) if len(words) > 2}
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
    assert_one_line_error(run(*command, *options[2:]), "names.txt", "'tree'")


def test_all_bad_files_are_named_before_the_first_is_done(run, bsds, boundary_preset, tmp_path):
    (bsds / "images" / "val" / "boat.png").write_bytes(b"no image")
    (bsds / "groundTruth" / "val" / "plane.mat").write_bytes(b"no annotations")
    outcome = run("evaluate", bsds, "--preset", boundary_preset, "--json", tmp_path / "f.json")
    assert_one_line_error(outcome, "2 of 2 images", "boat.png", "plane.mat")
    assert not (tmp_path / "f.json").exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--threshold", "1.5"], "threshold"),
        (["--split", "train"], "train"),
        (["--instances", "masks/*"], "--instances does not go with a model for boundaries"),
        (["--task", "instances"], "must be an InstanceSegmenter"),
    ],
)
def test_bad_options(run, bsds, boundary_preset, options, part):
    assert_one_line_error(run("evaluate", bsds, "--preset", boundary_preset, *options), part)


def test_segmenter_is_refused_and_takes_no_split(run, labelled, tiny_preset):
    command = ("evaluate", labelled, "--preset", tiny_preset)
    outcome = run(*command, "--task", "boundaries")
    assert_one_line_error(outcome, "must be a BoundaryDetector", "InstanceSegmenter")
    assert_one_line_error(run(*command, "--split", "val"), "--split", "instances")
