"""`segment` and `boundaries`, which go through images and write files for each; and `demo`."""

import csv
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import BAD_IMAGES, assert_one_line_error, bad_image, full_disk
from PIL import Image

from keras_rpe.data import read_image, read_labels, read_pixel_size
from keras_rpe.models import Instances, InstanceSegmenter
from keras_rpe.ops.backend import device_name
from keras_rpe_cli.demo import demo_image

TABLES = ("instances.csv", "summary.csv")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(params=["segment", "boundaries"])
def command(request, tiny_preset, boundary_preset) -> tuple[str, str, Path]:
    preset = tiny_preset if request.param == "segment" else boundary_preset
    return request.param, "--preset", preset


def test_segment_writes_labels_overlay_and_table(run, labelled, tiny_model, tiny_preset, tmp_path):
    out = tmp_path / "new" / "out"
    outcome = run("segment", labelled / "images", "--preset", tiny_preset, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    names = {f"{n}_{kind}.png" for n in "abcd" for kind in ("labels", "overlay")}
    assert names_in(out) == names | {"instances.csv", "summary.csv"}
    rows = rows_of(out / "instances.csv")
    total = 0
    for name in "abcd":
        image = read_image(labelled / "images" / f"{name}.png")
        expected = tiny_model.predict_instances(image)
        total += len(expected)
        np.testing.assert_array_equal(read_labels(out / f"{name}_labels.png"), expected.labels)
        assert read_image(out / f"{name}_overlay.png").shape == image.shape
        mine = [row for row in rows if row["image"] == f"{name}.png"]
        assert [int(row["instance"]) for row in mine] == list(range(1, len(expected) + 1))
        assert [int(row["area_px"]) for row in mine] == expected.areas.tolist()
        boxes = [[int(row[k]) for k in ("top", "left", "bottom", "right")] for row in mine]
        assert boxes == expected.boxes.tolist()
        assert {row["class"] for row in mine} <= {"cell"}
        scores = [float(row["score"]) for row in mine]
        np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
    assert total > 0
    assert f"{total} instances in 4 images" in outcome.out.splitlines()[-1]
    first, *lines = outcome.out.splitlines()
    assert first == device_name()
    assert len(lines) == 5


def test_boundaries_writes_both_maps(run, labelled, tiny_detector, boundary_preset, tmp_path):
    out = tmp_path / "new" / "out"
    outcome = run("boundaries", labelled / "images", "--preset", boundary_preset, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    assert names_in(out) == {f"{n}{kind}.png" for n in "abcd" for kind in ("", "_thin")}
    for name in "abcd":
        image = read_image(labelled / "images" / f"{name}.png")
        maps = tiny_detector.predict_boundaries(image)
        for kind, expected in (("", maps.probabilities), ("_thin", maps.thinned)):
            found = read_image(out / f"{name}{kind}.png")
            assert found.dtype == np.uint8
            np.testing.assert_allclose(found / 255, expected, atol=0.51 / 255)
        assert 0 < (found > 0).sum() < 0.7 * found.size
    assert f"{labelled / 'images' / 'a.png'}: {out / 'a.png'}" in outcome.out
    assert outcome.out.splitlines()[-1] == f"boundaries of 4 images, written to {out}"


def test_boundaries_at_several_scales(run, labelled, tiny_detector, boundary_preset, tmp_path):
    file = labelled / "images" / "a.png"
    command = ("boundaries", file, "--preset", boundary_preset, "--out", tmp_path, "--scales")
    outcome = run(*command, "0.5,1")
    assert (outcome.code, outcome.err) == (0, "")
    expected = tiny_detector.predict_boundaries(read_image(file), scales=(0.5, 1)).probabilities
    np.testing.assert_allclose(read_image(tmp_path / "a.png") / 255, expected, atol=0.51 / 255)
    assert_one_line_error(run(*command, "large"), "--scales needs numbers", "Received: large")
    assert_one_line_error(run(*command, "0.5,9"), "`scales` must be", "(0.5, 9.0)")


def test_model_file_glob_and_fewer_results(run, labelled, tiny_model, tiny_detector, tmp_path):
    inputs = (labelled / "images" / "[ab].png", labelled / "images" / "a.png")
    for verb, model, options, expected in (
        ("segment", tiny_model, ("--suffix", "tif", "--no-overlay"),
         {"a_labels.tif", "b_labels.tif", "instances.csv", "summary.csv"}),
        ("boundaries", tiny_detector, ("--no-thin",), {"a.png", "b.png"}),
    ):  # fmt: skip
        file, out = tmp_path / f"{verb}.keras", tmp_path / verb
        model.save(file)
        outcome = run(verb, *inputs, "--model", file, "--out", out, *options)
        assert (outcome.code, outcome.err) == (0, "")
        assert names_in(out) == expected


def test_many_instances_become_tif(tmp_path):
    from keras_rpe_cli.segment import _write_results

    n = 65536
    labels = np.zeros((300, 300), "int32")
    labels.flat[:n] = np.arange(1, n + 1)
    result = Instances(labels, np.ones(n), np.zeros((n, 4), int), np.ones(n, int))
    _write_results(np.zeros((300, 300), "uint8"), result, tmp_path / "x", "png", False)
    assert names_in(tmp_path) == {"x_labels.tif"}
    assert read_labels(tmp_path / "x_labels.tif").max() == n


def test_white_is_the_largest_value_of_16_bits(run, boundary_preset, tmp_path):
    gray = np.random.default_rng(0).integers(0, 255, (24, 30)).astype("uint16")
    Image.fromarray(gray.astype("uint8")).save(tmp_path / "a.png")
    Image.fromarray(gray * 257).save(tmp_path / "b.png")
    inputs = (tmp_path / "a.png", tmp_path / "b.png")
    assert read_image(inputs[1]).dtype == np.uint16
    outcome = run("boundaries", *inputs, "--preset", boundary_preset, "--out", tmp_path / "out")
    assert outcome.code == 0
    maps = [read_image(tmp_path / "out" / f"{name}.png").astype(int) for name in "ab"]
    assert abs(maps[0] - maps[1]).max() <= 1
    assert np.ptp(maps[0]) > 10


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
    (tmp_path / "out" / "instances.csv").write_text("my,own\n1,2\n")
    outcome = run("segment", labelled, "--preset", tiny_preset, "--out", tmp_path / "out")
    assert_one_line_error(outcome, "instances.csv")
    assert (tmp_path / "out" / "instances.csv").read_text() == "my,own\n1,2\n"


def test_one_name_with_two_endings_gives_two_results(run, labelled, tiny_preset, tmp_path):
    folder = labelled / "images"
    (folder / "d.png").rename(folder / "A.tif")
    (folder / "notes äö.txt").write_text("mine")
    outcome = run("segment", folder, "--preset", tiny_preset, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert "1 file skipped that are no images: notes äö.txt" in outcome.out
    found = {name for name in names_in(tmp_path / "out") if name.endswith("_labels.png")}
    assert found == {f"{name}_labels.png" for name in ("a_png", "A_tif", "b", "c")}
    images = [row["image"] for row in rows_of(tmp_path / "out" / "summary.csv")]
    assert sorted(images) == ["A.tif", "a.png", "b.png", "c.png"]


def test_channels_pages_and_sizes(run, tiny_model, tiny_preset, tmp_path):
    import pandas

    stack = np.random.default_rng(0).integers(0, 900, (3, 2, 24, 40)).astype("uint16")
    stack[:, 1, 4:20, 6:20] += 2000
    file, out = tmp_path / "größe 1.tif", tmp_path / "out put"
    options = {"resolution": (4, 4), "metadata": {"axes": "ZCYX", "unit": "um"}}
    tifffile.imwrite(file, stack, imagej=True, **options)
    verb = "segment", file, "--preset", tiny_preset, "--out", out
    for given, words in (
        ((), ("3 images", "--page", "--project")),
        (("--page", 2), ("2 channels", "--channel")),
        (("--page", 9, "--channel", 2), ("3 pages", "--page 9")),
        (("--project", "max", "--page", 2), ("--page", "--project")),
        (("--pixel-size", "-1"), ("--pixel-size", "-1")),
        (("--outlines", "svg"), ("--outlines", "geojson", "svg")),
    ):
        assert_one_line_error(run(*verb, *given), *words)
    shape = ("--channel", 2, "--project", "max", "--measure", "--suffix", "tif")
    outcome = run(
        *verb, *shape, "--outlines", "geojson", "--outlines", "imagej", "--outlines", "coco"
    )
    assert (outcome.code, outcome.err) == (0, "")
    expected = tiny_model.predict_instances(stack[:, 1].max(axis=0))
    assert len(expected) > 0
    endings = ("_labels.tif", "_overlay.png", ".geojson", "_rois.zip", "_coco.json")
    assert names_in(out) == {f"größe 1{ending}" for ending in endings} | {*TABLES}
    np.testing.assert_array_equal(read_labels(out / "größe 1_labels.tif"), expected.labels)
    assert read_pixel_size(out / "größe 1_labels.tif") == pytest.approx(0.25)
    table = pandas.read_csv(out / "instances.csv")
    assert set(table["image"]) == {"größe 1.tif"}
    both = np.moveaxis(stack.max(axis=0), 0, -1)
    measured = expected.measure(both, 0.25)
    assert set(table["class"]) == {"cell"}
    assert measured.pop("class").tolist() == [1] * len(table)
    for name, values in measured.items():
        np.testing.assert_allclose(table[name], values, rtol=1e-4, err_msg=name)
    assert {"mean_2", "max_1", "area_um2", "perimeter_um"} <= {*table}
    (row,) = rows_of(out / "summary.csv")
    assert (row["instances"], row["pixel_size_um"]) == (str(len(expected)), "0.25")


def test_summary_lists_images_without_instances(run, labelled, tiny_preset, tmp_path, monkeypatch):
    nothing = Instances(np.zeros((32, 40), "int32"), *(np.zeros(n) for n in (0, (0, 4), 0)))
    monkeypatch.setattr(InstanceSegmenter, "predict_instances", lambda *_: nothing)
    run("segment", labelled / "images", "--preset", tiny_preset, "--out", tmp_path / "out")
    assert rows_of(tmp_path / "out" / "instances.csv") == []
    rows = rows_of(tmp_path / "out" / "summary.csv")
    assert [(row["image"], row["instances"]) for row in rows] == [(f"{n}.png", "0") for n in "abcd"]


def test_bad_images_do_not_stop_the_others(run, labelled, command, tmp_path):
    bad = bad_image(labelled / "images", "truncated.png")
    parts = ["missing.png", str(bad)]
    if command[0] == "boundaries":
        tifffile.imwrite(labelled / "images" / "float.tif", np.zeros((16, 16), "float32"))
        parts.append("float.tif holds values of type float32")
    verb, *preset = command
    inputs = (labelled / "images", tmp_path / "missing.png")
    outcome = run(verb, *inputs, *preset, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert [line.split(":")[0] for line in outcome.err.splitlines()] == ["error"] * len(parts)
    assert all(part in outcome.err for part in parts)
    assert " 4 images, written to" in outcome.out
    assert len(names_in(tmp_path / "out")) == 8 + 2 * (verb == "segment")


def test_results_never_overwrite_inputs_or_each_other(run, labelled, command, tmp_path):
    verb, *preset = command
    folder = labelled / "images"
    if verb == "segment":
        (folder / "b.png").rename(folder / "a_overlay.png")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert_one_line_error(run(verb, folder, *preset, "--out", folder), "would overwrite")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before

    if verb == "boundaries":
        (folder / "d.png").rename(folder / "B_Thin.png")
        inputs = [folder]
        parts = ["b.png", "B_Thin.png"]
    else:
        (tmp_path / "more").mkdir()
        (folder / "d.png").rename(tmp_path / "more" / "c.png")
        inputs = [folder, tmp_path / "more"]
        parts = ["c.png", "more"]
    outcome = run(verb, *inputs, *preset, "--out", tmp_path / "out")
    assert_one_line_error(outcome, "differ", *parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("verb", "full_at", "left"),
    [
        ("segment", "b_overlay.png", {"a_labels.png", "a_overlay.png", *TABLES}),
        ("boundaries", "b.png", {"a.png", "a_thin.png"}),
        ("boundaries", "b_thin.png", {"a.png", "a_thin.png"}),
    ],
)
def test_disk_gets_full(
    run, labelled, tiny_preset, boundary_preset, tmp_path, monkeypatch, verb, full_at, left
):
    real = os.replace

    def fill(source: Path, target: Path) -> None:
        if Path(target).name == full_at:
            full_disk()
        real(source, target)

    monkeypatch.setattr("os.replace", fill)
    out = tmp_path / "out"
    preset = tiny_preset if verb == "segment" else boundary_preset
    outcome = run(verb, labelled / "images", "--preset", preset, "--out", out)
    assert_one_line_error(outcome, "No space left")
    assert names_in(out) == left
    if verb == "segment":
        assert {row["image"] for row in rows_of(out / "instances.csv")} == {"a.png"}


def test_ctrl_c_keeps_what_is_done(run, labelled, tiny_preset, tmp_path, monkeypatch):
    real = InstanceSegmenter.predict_instances
    calls = []

    def interrupted(self: InstanceSegmenter, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(InstanceSegmenter, "predict_instances", interrupted)
    out = tmp_path / "out"
    outcome = run("segment", labelled / "images", "--preset", tiny_preset, "--out", out)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert {row["image"] for row in rows_of(out / "instances.csv")} == {"a.png", "b.png"}


def test_inputs_that_give_nothing_leave_nothing(run, tiny_preset, tmp_path):
    (tmp_path / "none").mkdir()
    inputs = [tmp_path / name for name in ("none", "*.jpg", "missing.png")]
    inputs += [bad_image(tmp_path, name) for name in BAD_IMAGES]
    for path in inputs:
        outcome = run("segment", path, "--preset", tiny_preset, "--out", tmp_path / "new" / "out")
        assert_one_line_error(outcome, str(path))
        assert not (tmp_path / "new").exists()


def test_demo_writes_pictures_and_labels(run, tiny_preset, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the demo must not need the internet")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    stain = demo_image()[:96, :96]
    monkeypatch.setattr("keras_rpe_cli.demo.demo_image", lambda: stain)
    out = tmp_path / "demo"
    outcome = run("demo", "--preset", tiny_preset, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    labels = read_labels(out / "labels.png")
    count = int(labels.max())
    _, counted, *paths = outcome.out.splitlines()
    assert counted.split() == [str(count), "instance" + "s" * (count != 1)]
    assert labels.shape == stain.shape
    np.testing.assert_array_equal(read_image(out / "image.png")[..., 0], stain)
    assert read_image(out / "overlay.png").shape == (*stain.shape, 3)
    assert read_image(out / "loops.png").shape[1] > 3 * stain.shape[1]
    assert sorted(paths) == sorted(str(path) for path in out.iterdir())
