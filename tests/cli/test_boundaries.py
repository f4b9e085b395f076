import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_images import BAD_IMAGES
from cli_outcome import assert_one_line_error
from PIL import Image

from keras_rpe.data import read_image, write_image
from keras_rpe.models import BoundaryDetector


def test_writes_both_maps(run, labelled, boundary_preset, tmp_path):
    out = tmp_path / "new" / "out"
    outcome = run("boundaries", labelled / "images", "--preset", boundary_preset, "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    names = {f"{n}{kind}.png" for n in "abcd" for kind in ("", "_thin")}
    assert {path.name for path in out.iterdir()} == names
    model = BoundaryDetector.from_preset(boundary_preset)
    for name in "abcd":
        image = read_image(labelled / "images" / f"{name}.png")
        maps = model.predict_boundaries(image)
        for kind, expected in (("", maps.probabilities), ("_thin", maps.thinned)):
            found = read_image(out / f"{name}{kind}.png")
            assert found.dtype == np.uint8
            np.testing.assert_allclose(found / 255, expected, atol=0.51 / 255)
        assert 0 < (found > 0).sum() < 0.7 * found.size
    assert f"{labelled / 'images' / 'a.png'}: {out / 'a.png'}" in outcome.out
    assert outcome.out.splitlines()[-1] == f"boundaries of 4 images, written to {out}"


def test_model_file_and_glob_without_thinning(run, labelled, tiny_detector, tmp_path):
    tiny_detector.save(tmp_path / "m.keras")
    inputs = (labelled / "images" / "[ab].png", labelled / "images" / "a.png")
    options = ("--model", tmp_path / "m.keras", "--out", tmp_path / "out", "--no-thin")
    outcome = run("boundaries", *inputs, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png"}


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


def test_bad_images_do_not_stop_the_others(run, labelled, boundary_preset, tmp_path):
    import tifffile

    bad = BAD_IMAGES["truncated"](labelled / "images")
    tifffile.imwrite(labelled / "images" / "float.tif", np.zeros((16, 16), "float32"))
    inputs = (labelled / "images", tmp_path / "missing.png")
    out = tmp_path / "out"
    outcome = run("boundaries", *inputs, "--preset", boundary_preset, "--out", out)
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error"] * 3
    for part in ("missing.png", str(bad), "float.tif holds values of type float32"):
        assert part in outcome.err
    assert "boundaries of 4 images" in outcome.out
    assert len(list(out.iterdir())) == 8


def test_results_never_overwrite_inputs_or_each_other(run, labelled, boundary_preset, tmp_path):
    folder = labelled / "images"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    outcome = run("boundaries", folder, "--preset", boundary_preset, "--out", folder)
    assert_one_line_error(outcome, "would overwrite")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before

    (folder / "a.png").rename(folder / "B_Thin.png")
    command = ("boundaries", folder, "--preset", boundary_preset, "--out", tmp_path / "out")
    assert_one_line_error(run(*command), "differ", "b.png", "B_Thin.png")
    assert not (tmp_path / "out").exists()
    assert run(*command, "--no-thin").code == 0


@pytest.mark.parametrize("full_at", ["b.png", "b_thin.png"])
def test_disk_gets_full(run, labelled, boundary_preset, tmp_path, monkeypatch, full_at):
    real = os.replace

    def fill(source: Path, target: Path) -> None:
        if Path(target).name == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr("os.replace", fill)
    out = tmp_path / "out"
    outcome = run("boundaries", labelled / "images", "--preset", boundary_preset, "--out", out)
    assert_one_line_error(outcome, "No space left")
    assert {path.name for path in out.iterdir()} == {"a.png", "a_thin.png"}


def test_model_with_another_white(run, boundary_preset, tmp_path):
    shutil.copytree(boundary_preset, tmp_path / "plain")
    one = BoundaryDetector.from_preset(boundary_preset, max_value=1.0)
    one.save_to_preset(tmp_path / "one")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3)).astype("uint8")
    write_image(tmp_path / "a.png", pixels)
    for preset in ("plain", "one"):
        options = ("--preset", tmp_path / preset, "--out", tmp_path / f"{preset}_maps")
        assert run("boundaries", tmp_path / "a.png", *options).code == 0
    maps = [read_image(tmp_path / f"{preset}_maps" / "a.png") for preset in ("plain", "one")]
    assert abs(maps[0].astype(int) - maps[1]).max() <= 1
