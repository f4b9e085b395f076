"""The tutorial scripts, with small settings where that changes little: `pytest -m slow`."""

import itertools
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TUTORIALS = Path(__file__).parents[1] / "examples" / "tutorials"


def _run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(TUTORIALS / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _numbers(text: str, start: str) -> list[float]:
    """The numbers of the first line that begins so, after its beginning."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [float(x) for x in re.findall(r"\d+(?:\.\d+)?(?:e[+-]\d+)?", line[len(start) :])]


def _is_picture(path: Path) -> bool:
    return path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 10_000


@pytest.mark.slow
def test_margins(tmp_path: Path) -> None:
    text = _run("margins.py", "--out", tmp_path, "--dims", 3, 16, 64, "--most-groups", 64)
    # Tammes' problem, Fejes Tóth's bound, and its form for many groups, which is loose.
    best = [0.333, 0.5, 0.5, 0.605, 0.631, 0.667, 0.702, 0.724, 0.724]
    for groups, margin in zip(range(4, 13), best):
        found, bound, loose = _numbers(text, f"N = {groups} ")
        assert found == pytest.approx(margin, abs=6e-4)
        assert loose <= bound <= found
    loose = [_numbers(text, f"N = {groups} ")[2] for groups in (4, 5, 6, 7)]
    assert loose == [0.093, 0.274, 0.395, 0.482]
    smallest, fits = text.split("\n\n")[1:3]
    # 4, 6, 12, 20, 32 and 64 groups.
    *_, twenty, thirty_two, sixty_four = _numbers(smallest, "D = 16")
    assert twenty == thirty_two == 0.5
    assert 0.5 < sixty_four < 0.585
    assert _numbers(fits, "D = 64")[:3] == [2, 3, 128]
    assert _numbers(fits, "D = 3 ")[2] == 6
    # Points spread in 64 dimensions reach the floor, and so do those that share four places.
    floor, spread, crowded, shared = _numbers(text, "margin 0.1,   64")
    assert floor == spread == shared == pytest.approx(0.4 - 0.9 / 64, abs=1e-4)
    assert crowded > floor
    assert all(_is_picture(tmp_path / f"{k}.png") for k in ("margins", "spheres", "loss_floor"))


@pytest.mark.slow
def test_mean_shift(tmp_path: Path) -> None:
    text = _run("mean_shift.py", "--out", tmp_path)
    groups, survivors, spreads = text.split("\n\n")[:3]
    # After ten loops: places, and how many of 250 and of 30 points the largest group swallowed.
    assert _numbers(groups, "kappa = 25, bandwidth 0.20")[-3:] == [3, 0, 0]
    assert _numbers(groups, "kappa = 6, bandwidth 0.41")[-3:] == [2, 0, 30]
    assert _numbers(survivors, "6 ") == pytest.approx([0.057, 0.13, 0.23], rel=0.03)
    assert _numbers(survivors, "10 ") == pytest.approx([0.0015, 0.0036, 0.0063], rel=0.03)
    assert max(_numbers(survivors, "20 ") + _numbers(survivors, "25 ")) < 1e-6
    # Blurring and ordinary mean shift, each beside what it does to a Gaussian.
    blurring, of_blurring, ordinary, of_ordinary = _numbers(spreads, "0.1     2 ")
    assert blurring == pytest.approx(of_blurring, rel=0.2)
    assert ordinary == pytest.approx(of_ordinary, rel=0.1)
    for start, loop in (("0.1", 3), ("0.2", 4), ("0.3", 5)):
        blurring, _, ordinary, _ = _numbers(spreads, f"{start:<8}{loop} ")
        assert blurring < 1e-4
        assert ordinary > 5e-4
    names = ("trajectories", "loops", "small_groups", "convergence")
    assert all(_is_picture(tmp_path / f"{name}.png") for name in names)


@pytest.mark.slow
def test_gradient_toy(tmp_path: Path) -> None:
    text = _run("gradient_toy.py", "--out", tmp_path, "--points", 300)
    # Mean, share at one place and share that has joined: without mean shift, the same with long
    # steps, and with it.
    alone, far, together = np.reshape(_numbers(text, "  30 "), (3, 3))
    assert alone[0] < 4.5 < 4.9 < together[0]
    assert alone[2] < 2
    assert together[1] == together[2] == 100
    assert far[2] < 90
    alone, far, together = np.reshape(_numbers(text, "  10 "), (3, 3))
    assert max(alone[1], far[1]) < 50 < 80 < together[1]
    # Mean shift concentrates the gradient on few points.
    assert _numbers(text, "mean shift, 5 loops:")[0] > 1.25 * _numbers(text, "no mean shift:")[0]
    assert all(_is_picture(tmp_path / f"{name}.png") for name in ("runs", "pull"))


@pytest.mark.slow
def test_gradient_share(tmp_path: Path, data_root: Path) -> None:
    source = data_root / "mnist_10k.npz"
    text = _run("gradient_share.py", "--out", tmp_path, "--source", source, "--scenes", 4)
    pixels = _numbers(text, "(pixels)")
    shares = [_numbers(text, f"{loops} ") for loops in (0, 1, 3, 5)]
    assert all(0 < share < 1 for row in [pixels, *shares] for share in row)
    # More of the gradient than of the pixels is near other digits, with and without loops.
    assert min(near for near, _ in shares) > 1.2 * pixels[0]
    assert _is_picture(tmp_path / "gradient.png")


@pytest.mark.slow
def test_the_line_on_a_circle_is_straight_enough() -> None:
    shift = runpy.run_path(str(TUTORIALS / "gradient_toy.py"))["shift"]
    x = np.random.default_rng(0).uniform(2.0, 6.0, 200)
    loops = shift(x, 4, 0.1).numpy()
    for before, after in itertools.pairwise(loops):
        kernel = np.exp(-0.5 * ((before[:, None] - before) / 0.1) ** 2)
        np.testing.assert_allclose(after, kernel @ before / kernel.sum(axis=1), atol=1e-3)
