"""The tutorial scripts, with small settings: `pytest -m slow`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[1] / "examples" / "tutorials"


def _run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(TUTORIALS / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_margins(tmp_path: Path) -> None:
    text = _run("margins.py", "--out", tmp_path, "--dims", 3, 16, "--most-groups", 32)
    for margin in ("0.333", "0.605", "0.631", "0.667", "0.702", "0.724"):
        assert margin in text
    for name in ("margins", "spheres", "loss_floor"):
        assert (tmp_path / f"{name}.png").is_file()


@pytest.mark.slow
def test_gradient_toy(tmp_path: Path) -> None:
    text = _run("gradient_toy.py", "--out", tmp_path, "--points", 300)
    last = re.findall(r"([\d.]+) +([\d.]+)% +([\d.]+)%", text.split("\n\n")[0].splitlines()[-1])
    # Mean, share at one place and share that has joined, without and with mean shift.
    alone, _, together = [[float(value) for value in cell] for cell in last]
    assert together[0] > alone[0] + 0.3
    assert alone[2] < 20 < 80 < together[2]
    assert (tmp_path / "runs.png").is_file()
    assert (tmp_path / "pull.png").is_file()
