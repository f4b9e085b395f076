"""The example scripts, and a long benchmark, on a few real images: `pytest -m slow`."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_rpe.models import InstanceSegmenter, Task

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
    other = tmp_path / "other"
    other.symlink_to(small_folder)
    options = ["--leave-out", other, "--minutes", 0.2]
    text = _run("train_nuclei.py", small_folder, other, "--out", out, *options)
    assert "AP at IoU 0.5, 10 images of other held out" in text
    assert len((out / "other.txt").read_text().split()) == 10
    assert 0 < len((out / "data.txt").read_text().split()) < 10
    assert (out / "preset" / "metadata.json").is_file()


@pytest.mark.slow
def test_through_grouping(small_folder: Path, tmp_path: Path) -> None:
    """A benchmark of hours, which is better known to end before it begins."""
    out = tmp_path / "run"
    options = ["--left-out", small_folder, "--out", out, "--steps", 2, "--seeds", 1]
    first, again = (
        _run("../benchmarks/through_grouping.py", small_folder, *options) for _ in range(2)
    )
    table = again.splitlines()
    assert first.splitlines()[-len(table) :] == table
    assert len(table) == 2 + 4
    assert len((out / "runs.csv").read_text().splitlines()) == 1 + 4
    assert len([*out.glob("*.weights.h5")]) == 2


@pytest.mark.slow
def test_train_boundaries(data_root: Path, tmp_path: Path) -> None:
    for part, ending in (("images", "jpg"), ("groundTruth", "mat")):
        for split in ("train", "val"):
            folder = tmp_path / "data" / part / split
            folder.mkdir(parents=True)
            for path in sorted((data_root / "bsds500" / part / split).glob(f"*.{ending}"))[:4]:
                (folder / path.name).symlink_to(path)
    out = tmp_path / "run"
    options = ["--backbone", "unet_small", "--backbone-weights", "", "--crop-size", 32]
    data = tmp_path / "data"
    # Half with the pair loss and half without it; then a hundred more, from the last state.
    for updates in (200, 300):
        _run("train_boundaries.py", data, "--out", out, "--updates", updates, *options)
    rows = (out / "log.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "0", "1", "2"]
    losses = [dict(zip(rows[0].split(","), row.split(","))) for row in rows[1:]]
    for row, with_pairs in zip(losses, (True, False, False)):
        gap = float(row["loss"]) - float(row["logits_loss"])
        assert (gap > 0.1) == with_pairs
    assert (out / "boundaries.png").is_file()
    assert (out / "preset" / "metadata.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["--paper"], ["--classes", "--embedding-dim", 8, "--loss-on", "embedding"]]
)
def test_digits(data_root: Path, tmp_path: Path, options: list) -> None:
    out = tmp_path / "run"
    source = ["--source", data_root / "mnist_10k.npz", "--batch-size", 2]
    for updates in (100, 200):  # From the last state.
        text = _run("digits.py", "--out", out, "--updates", updates, *source, *options)
        assert "panoptic quality, 500 test scenes" in text
    rows = (out / "log.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "0", "1"]
    drawn = {path.name for path in out.glob("*.png")}
    paper = "--paper" in options
    assert drawn == {"loss_per_loop.png", "scenes.png"} | ({"sphere.png"} if paper else set())
    last = dict(zip(rows[0].split(","), rows[-1].split(",")))
    counted = ["embedding_loss", "semantic_loss"]
    counted += [f"shift_{loop}_loss" for loop in (1, 2, 3, 4, 5)] if paper else []
    total = sum(float(last[name]) for name in counted)
    assert float(last["loss"]) == pytest.approx(total, rel=1e-3)
    assert (out / "preset" / "metadata.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--gray", "--grouping-weight", 0]])
def test_digits_semantic(data_root: Path, tmp_path: Path, options: list) -> None:
    out = tmp_path / "run"
    source = ["--source", data_root / "mnist_10k.npz", "--batch-size", 2]
    for updates in (100, 200):  # From the last state.
        text = _run("digits_semantic.py", "--out", out, "--updates", updates, *source, *options)
        assert "mean IoU, 500 test scenes" in text
    rows = (out / "log.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "0", "1"]
    assert ("embedding_loss" in rows[0]) == (not options)
    assert (out / "preset" / "metadata.json").is_file()


@pytest.fixture
def photographs(data_root: Path, tmp_path: Path) -> Path:
    """Twenty photographs with instances and classes."""
    folder = tmp_path / "voc"
    for part in ("images", "instances", "semantic"):
        (folder / part).mkdir(parents=True)
        for path in sorted((data_root / "voc" / part).iterdir())[:20]:
            (folder / part / path.name).symlink_to(path)
    (folder / "classes.json").symlink_to(data_root / "voc" / "classes.json")
    return folder


TINY = ["--backbone", "unet_small", "--backbone-weights", "", "--crop-size", 32, "--batch-size", 4]


@pytest.mark.slow
def test_photograph_losses(photographs: Path, tmp_path: Path) -> None:
    """Two losses of each task; finished runs are not repeated."""
    for task, rows in (("classes", 3), ("proposals", 2), ("instances", 2)):
        options = ["--out", tmp_path / "run", "--updates", 20, "--seeds", 1, *TINY]
        options += ["--weights", 0.1, 1] if task == "classes" else []
        first, again = (
            _run("../benchmarks/photograph_losses.py", task, photographs, *options).splitlines()
            for _ in range(2)
        )
        assert first[-rows - 1 :] == again[-rows - 1 :]
        timed = [sum(line.endswith(" s") for line in lines) for lines in (first, again)]
        assert timed == [rows, 0]
        assert len((tmp_path / "run" / f"{task}.csv").read_text().splitlines()) == 1 + rows


@pytest.mark.slow
def test_train_photographs(photographs: Path, tmp_path: Path) -> None:
    """The three tasks, one of them stopped and started again, and one from another's preset."""
    folder, options = photographs, TINY
    classes, begun = tmp_path / "classes", tmp_path / "begun"
    _run("train_photographs.py", "classes", folder, "--out", begun, "--minutes", 0.001, *options)
    for minutes in (0.1, 0.2):
        _run("train_photographs.py", "classes", folder, "--out", classes, "--minutes", minutes,
             *options)  # fmt: skip
    rows = (classes / "log.csv").read_text().splitlines()
    epochs = [row.partition(",")[0] for row in rows]
    assert len(epochs) > 2
    assert epochs == ["epoch", *map(str, range(len(rows) - 1))]  # From the last state.
    assert len((classes / "voc.txt").read_text().split()) == 4
    # The backbone stays as it began, after a restart as well.
    first, last = (
        Task.from_preset(str(p)).backbone.get_weights()
        for p in (begun / "preset", classes / "preset")
    )
    for before, after in zip(first, last):
        np.testing.assert_array_equal(before, after)
    for task in ("instances", "proposals"):
        out = tmp_path / task
        start = ["--start", classes / "preset"] if task == "instances" else []
        _run("train_photographs.py", task, folder, "--out", out, "--minutes", 0.1, *options,
             *start)  # fmt: skip
        notes = json.loads((out / "preset" / "metadata.json").read_text())
        assert notes["trained_on"] == "14 photographs"
        config = json.loads((out / "preset" / "config.json").read_text())["config"]
        names = config["class_names"][:2] if task == "instances" else None
        assert names == (["aeroplane", "bicycle"] if start else None)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "processes"), [("tensorflow", 1), ("jax", 1), ("jax", 2)])
def test_distributed(small_folder: Path, tmp_path: Path, backend: str, processes: int) -> None:
    out = tmp_path / "run"
    command = [sys.executable, EXAMPLES / "distributed" / "train.py", small_folder, "--out", out]
    command += ["--epochs", "1", "--batch-size", "1", "--crop-size", "64"]
    if processes == 1:
        command += ["--virtual-devices", "2"]
    else:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command += ["--coordinator", f"127.0.0.1:{port}", "--processes", str(processes)]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    numbered = [[*command, "--process", str(k)] for k in range(processes)]
    pipes = {"stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(map(str, one), env=environment, **pipes) for one in numbered]
    try:
        texts = [process.communicate(timeout=600)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * processes
    assert all("2 devices in all" in text for text in texts)
    model = InstanceSegmenter.from_preset(str(out / "preset"))
    assert np.isfinite(model.embed(np.zeros((1, 32, 32, 3), "float32"))[0]).all()
