"""The example scripts, on a few real images: `pytest -m slow`."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def small_folder(data_root: Path, tmp_path: Path) -> Path:
    """Ten images of the real training set."""
    source = data_root / "dsb2018" / "train"
    for part in ("images", "instances"):
        (tmp_path / "data" / part).mkdir(parents=True)
        for path in sorted((source / part).glob("*.png"))[:10]:
            (tmp_path / "data" / part / path.name).symlink_to(path)
    return tmp_path / "data"


def _run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_train_on_a_folder(small_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    text = _run("train_on_a_folder.py", small_folder, "--out", out, "--epochs", 1)
    assert f"drawn in {out / 'overlay.png'}" in text
    assert (out / "overlay.png").is_file()
    assert (out / "preset" / "model.weights.h5").is_file()


@pytest.mark.slow
def test_train_nuclei(small_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    text = _run("train_nuclei.py", small_folder, "--out", out, "--minutes", 0.2)
    assert "AP at IoU 0.5" in text
    assert (out / "preset" / "metadata.json").is_file()


@pytest.mark.slow
def test_train_boundaries(data_root: Path, tmp_path: Path) -> None:
    for part, ending in (("images", "jpg"), ("groundTruth", "mat")):
        for split in ("train", "val"):
            folder = tmp_path / "data" / part / split
            folder.mkdir(parents=True)
            for path in sorted((data_root / "bsds500" / part / split).glob(f"*.{ending}"))[:4]:
                (folder / path.name).symlink_to(path)
    out = tmp_path / "run"
    options = ["--updates", 100, "--backbone", "unet_small", "--backbone-weights", ""]
    _run("train_boundaries.py", tmp_path / "data", "--out", out, "--crop-size", 64, *options)
    assert (out / "boundaries.png").is_file()
    assert (out / "preset" / "metadata.json").is_file()
