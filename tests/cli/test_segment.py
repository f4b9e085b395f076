import csv
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from bad_images import BAD_IMAGES
from cli_outcome import assert_one_line_error

from keras_rpe.data import read_image, read_labels, write_image
from keras_rpe.models import InstanceSegmenter


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_writes_labels_overlay_and_table(run, labelled, tiny_preset, tmp_path):
    out = tmp_path / "new" / "out"
    outcome = run("segment", labelled / "images", "--preset", tiny_preset, "--out", out)
    assert outcome.code == 0
    assert outcome.err == ""
    names = {f"{n}_{kind}.png" for n in "abcd" for kind in ("labels", "overlay")}
    assert {path.name for path in out.iterdir()} == names | {"instances.csv"}
    rows = rows_of(out / "instances.csv")
    model = InstanceSegmenter.from_preset(tiny_preset)
    total = 0
    for name in "abcd":
        image = read_image(labelled / "images" / f"{name}.png")
        expected = model.predict_instances(image)
        total += len(expected)
        np.testing.assert_array_equal(read_labels(out / f"{name}_labels.png"), expected.labels)
        assert read_image(out / f"{name}_overlay.png").shape == image.shape
        mine = [row for row in rows if row["image"] == name]
        assert [int(row["instance"]) for row in mine] == list(range(1, len(expected) + 1))
        assert [int(row["area"]) for row in mine] == expected.areas.tolist()
        boxes = [[int(row[k]) for k in ("top", "left", "bottom", "right")] for row in mine]
        assert boxes == expected.boxes.tolist()
        assert [int(row["class"]) for row in mine] == expected.classes.tolist()
        np.testing.assert_allclose(
            [float(row["score"]) for row in mine], expected.scores, atol=1e-4
        )
    assert total > 0
    assert f"{total} instances in 4 images" in outcome.out.splitlines()[-1]
    assert len(outcome.out.splitlines()) == 5


def test_model_file_glob_tif_no_overlay(run, labelled, tiny_model, tmp_path):
    tiny_model.save(tmp_path / "m.keras")
    inputs = labelled / "images" / "[ab].png"
    outcome = run(
        "segment", inputs, labelled / "images" / "a.png", "--model", tmp_path / "m.keras",
        "--out", tmp_path / "out", "--suffix", "tif", "--no-overlay",
    )  # fmt: skip
    assert outcome.code == 0
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"a_labels.tif", "b_labels.tif", "instances.csv"}


def test_many_instances_become_tif(tmp_path):
    from keras_rpe.models import Instances
    from keras_rpe_cli.segment import _write_results

    n = 65536
    labels = np.zeros((300, 300), "int32")
    labels.flat[:n] = np.arange(1, n + 1)
    result = Instances(labels, np.ones(n), np.zeros((n, 4), int), np.ones(n, int))
    _write_results(np.zeros((300, 300), "uint8"), result, "x", tmp_path, "png", False)
    assert [path.name for path in tmp_path.iterdir()] == ["x_labels.tif"]
    assert read_labels(tmp_path / "x_labels.tif").max() == n


def test_table_keeps_other_images_and_replaces_its_own(run, labelled, tiny_preset, tmp_path):
    def segment(name: str) -> list[dict[str, str]]:
        file = labelled / "images" / f"{name}.png"
        outcome = run("segment", file, "--preset", tiny_preset, "--out", tmp_path / "out")
        assert outcome.code == 0
        return rows_of(tmp_path / "out" / "instances.csv")

    first = segment("a")
    both = segment("b")
    assert both[: len(first)] == first
    assert len(both) > len(first)
    assert segment("a") == both


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_image_alone_leaves_nothing(run, tiny_preset, tmp_path, kind):
    path = BAD_IMAGES[kind](tmp_path)
    outcome = run("segment", path, "--preset", tiny_preset, "--out", tmp_path / "new" / "out")
    assert_one_line_error(outcome, str(path))
    assert not (tmp_path / "new").exists()


def test_bad_images_do_not_stop_the_others(run, labelled, tiny_preset, tmp_path):
    bad = BAD_IMAGES["truncated"](labelled / "images")
    inputs = (labelled / "images", tmp_path / "missing.png")
    outcome = run("segment", *inputs, "--preset", tiny_preset, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert [line.split(":")[0] for line in outcome.err.splitlines()] == ["error", "error"]
    assert "missing.png" in outcome.err
    assert str(bad) in outcome.err
    assert "in 4 images" in outcome.out
    assert len(list((tmp_path / "out").iterdir())) == 9


def test_inputs_without_images(run, tiny_preset, tmp_path):
    (tmp_path / "none").mkdir()
    for inputs in ("none", "*.png", "missing.png"):
        outcome = run(
            "segment", tmp_path / inputs, "--preset", tiny_preset, "--out", tmp_path / "out"
        )
        assert_one_line_error(outcome, inputs)
        assert not (tmp_path / "out").exists()


def test_one_name_twice(run, labelled, tiny_preset, tmp_path):
    image = read_image(labelled / "images" / "a.png")
    write_image(tmp_path / "a.png", image)
    inputs = (labelled / "images", tmp_path / "a.png")
    outcome = run("segment", *inputs, "--preset", tiny_preset, "--out", tmp_path / "out")
    assert_one_line_error(outcome, "differ", str(tmp_path / "a.png"))
    assert not (tmp_path / "out").exists()


def test_results_never_overwrite_inputs(run, labelled, tiny_preset):
    folder = labelled / "images"
    assert run("segment", folder, "--preset", tiny_preset, "--out", folder).code == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    outcome = run("segment", folder, "--preset", tiny_preset, "--out", folder)
    assert_one_line_error(outcome, "would overwrite")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("below", [False, True])
def test_out_is_a_file(run, labelled, tiny_preset, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "below" if below else tmp_path / "file"
    outcome = run("segment", labelled / "images", "--preset", tiny_preset, "--out", out)
    assert_one_line_error(outcome, "--out", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_disk_gets_full_at_an_overlay(run, labelled, tiny_preset, tmp_path, monkeypatch):
    import keras_rpe.data

    real = keras_rpe.data.write_image

    def fill(path: Path, rgb: np.ndarray) -> None:
        if path.name.startswith("b"):
            full_disk()
        real(path, rgb)

    monkeypatch.setattr(keras_rpe.data, "write_image", fill)
    out = tmp_path / "out"
    outcome = run("segment", labelled / "images", "--preset", tiny_preset, "--out", out)
    assert_one_line_error(outcome, "No space left")
    found = {path.name for path in out.iterdir()}
    assert found == {"a_labels.png", "a_overlay.png", "instances.csv"}
    assert {row["image"] for row in rows_of(out / "instances.csv")} == {"a"}


def test_foreign_table_is_left_alone(run, labelled, tiny_preset, tmp_path):
    (tmp_path / "instances.csv").write_text("my,own\n1,2\n")
    outcome = run("segment", labelled / "images", "--preset", tiny_preset, "--out", tmp_path)
    assert_one_line_error(outcome, "instances.csv")
    assert (tmp_path / "instances.csv").read_text() == "my,own\n1,2\n"


@pytest.mark.parametrize("both", [False, True])
def test_preset_or_model(run, labelled, tiny_preset, tmp_path, both):
    options = ["--preset", tiny_preset, "--model", tmp_path / "m.keras"] if both else []
    outcome = run("segment", labelled / "images", *options, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "either" in outcome.err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_what_is_done(run, labelled, tiny_preset, tmp_path, monkeypatch):
    real = InstanceSegmenter.predict_instances
    calls = []

    def interrupted(self: InstanceSegmenter, image: np.ndarray) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, image)

    monkeypatch.setattr(InstanceSegmenter, "predict_instances", interrupted)
    out = tmp_path / "out"
    outcome = run("segment", labelled / "images", "--preset", tiny_preset, "--out", out)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert {row["image"] for row in rows_of(out / "instances.csv")} == {"a", "b"}
