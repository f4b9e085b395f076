import numpy as np
import pytest
import tifffile
import zarr
from command_line import assert_one_line_error

from keras_rpe_cli.segment import _is_slide


@pytest.fixture
def slide(tmp_path):
    rows, columns = np.mgrid[:100, :150] % 25 - 12
    path = tmp_path / "dia 1.ome.zarr"
    zarr.save_array(path, np.where(rows**2 + columns**2 < 60, 220, 20).astype("uint8"))
    return path


def test_a_slide_is_segmented_in_tiles(run, slide, tiny_preset, tmp_path):
    out = tmp_path / "out"
    command = ("segment", slide, "--preset", tiny_preset, "--out", out)
    outcome = run(*command)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in out.iterdir()} == {"dia 1_labels.zarr", "dia 1_labels.csv"}
    assert f"{slide}: " in outcome.out
    assert "1 of 1 tiles" in outcome.out
    assert zarr.open_group(out / "dia 1_labels.zarr")["0"].shape == (100, 150)
    assert_one_line_error(run(*command), "dia 1_labels.zarr")
    again = ("segment", slide, "--preset", tiny_preset, "--out", tmp_path / "again")
    assert run(*again, "--suffix", "tif").code == 0
    assert tifffile.imread(tmp_path / "again" / "dia 1_labels.tif").shape == (100, 150)


def test_options_that_do_not_go_with_slides(run, slide, labelled, tiny_preset, tmp_path):
    common = ("--preset", tiny_preset, "--out", tmp_path / "out")
    for option in (("--measure",), ("--outlines", "geojson"), ("--page", 1)):
        assert_one_line_error(run("segment", slide, *common, *option), option[0], str(slide))
    assert_one_line_error(run("segment", slide, labelled / "images", *common), "not both")
    for option in (("--scheduler", "tcp://127.0.0.1:9"), ("--table", "parquet")):
        outcome = run("segment", labelled / "images", *common, *option)
        assert_one_line_error(outcome, option[0], "slides")
    assert not (tmp_path / "out").exists()


def test_which_files_are_slides(slide, labelled, tmp_path):
    assert _is_slide(str(slide))
    assert not _is_slide(str(labelled / "images"))
    for side, large in ((64, False), (8208, True)):
        path = tmp_path / f"{side}.tif"
        tifffile.imwrite(path, shape=(side, side), dtype="uint8", tile=(16, 16), data=None)
        assert _is_slide(str(path)) == large
    (tmp_path / "no.tif").write_text("no image")
    assert not _is_slide(str(tmp_path / "no.tif"))
