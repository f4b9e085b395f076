import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest
from command_line import Outcome, assert_one_line_error, full_disk
from test_app import COMMAND, ROOT

from keras_rpe.callbacks import TrainingState
from keras_rpe.models import InstanceSegmenter
from keras_rpe_cli.train import commands

SMALL = ("--batch-size", 2, "--crop-size", 16, "--repeats", 1)


def log_epochs(run: Path) -> list[int]:
    with (run / "log.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def assert_few_images_warning(outcome: Outcome) -> None:
    """Check that nothing was said but that one validation image is few."""
    (line,) = outcome.err.splitlines()
    assert line.startswith("warning: 1 validation image")
    assert "--validation-split" in line


def test_trains_continues_and_ends(run, labelled, tiny_preset, tmp_path):
    out = tmp_path / "run"
    command = ("train", labelled, "--preset", tiny_preset, "--out", out, *SMALL)
    first = run(*command, "--epochs", 1)
    assert first.code == 0
    assert_few_images_warning(first)
    for part in (" - loss: ", " - val_ap50: ", f"--preset {out / 'preset'} --out"):
        assert part in first.out
    assert "continuing" not in first.out

    again = run(*command, "--epochs", 1)
    assert again.code == 0
    assert "all 1 epochs are done" in again.out

    # What a run leaves that was killed between its log and its state.
    with (out / "log.csv").open("a") as file:
        file.write("1,0,0,0,0,0,0,0\n")
    more = run(*command, "--epochs", 2)
    assert more.code == 0
    assert "continuing after epoch 1" in more.out
    assert "Epoch 2/2" in more.out
    assert "Epoch 1/" not in more.out
    assert log_epochs(out) == [0, 1]
    assert (out / "best.keras").is_file()

    notes = json.loads((out / "preset" / "metadata.json").read_text())
    assert notes["trained_on"] == "3 images of labelled"
    assert 0 <= notes["figures"]["AP at IoU 0.5"] <= 1
    assert (notes["seed"], notes["initialised_from"]) == (0, f"preset {tiny_preset.name}")
    assert set(notes["versions"]) == {"python", "keras", "tensorflow", "numpy", "keras_rpe"}
    assert notes["commands"]["train"].startswith(f"keras-rpe train {labelled} --out {out}")
    card = (out / "preset" / "README.md").read_text()
    assert f"from_preset({json.dumps(str(out / 'preset'))})" in card
    for line in (*notes["commands"].values(), f"Measured on {notes['figures_on']}."):
        assert line in card.splitlines()
    # The command in the card prints the figure in the card.
    words = shlex.split(notes["commands"]["evaluate"])[1:]
    printed = run(*words, "--json", out / "figures.json")
    assert printed.code == 0
    again = json.loads((out / "figures.json").read_text())["thresholds"][0]["average_precision"]
    assert notes["figures"]["AP at IoU 0.5"] == pytest.approx(again, abs=1e-4)

    other = run(*command[:-4], "--crop-size", 24, "--repeats", 1, "--epochs", 2)
    assert_one_line_error(other, "--crop-size 16, not 24")
    assert "repeats" not in other.err
    (labelled / "images" / "a.png").unlink()
    (labelled / "instances" / "a.png").unlink()
    assert_one_line_error(run(*command, "--epochs", 2), "4 images", "3 images")


@pytest.mark.slow
def test_mixed_precision_ends_in_a_preset_of_float32(run, labelled, tiny_preset, tmp_path):
    out = tmp_path / "run"
    command = ("train", labelled, "--preset", tiny_preset, "--out", out, *SMALL)
    half = ("--precision", "mixed_bfloat16", "--jit")
    first = run(*command, *half, "--epochs", 1)
    assert first.code == 0
    assert_few_images_warning(first)
    assert first.out.startswith("tensorflow ")
    assert " on " in first.out.splitlines()[0]
    assert keras.config.dtype_policy().name == "float32"
    preset = InstanceSegmenter.from_preset(out / "preset")
    assert preset.backbone.layers[1].compute_dtype == "float32"
    notes = json.loads((out / "preset" / "metadata.json").read_text())
    assert notes["commands"]["train"].endswith("--precision mixed_bfloat16 --jit")
    more = run(*command, *half, "--epochs", 2)
    assert "continuing after epoch 1" in more.out
    other = run(*command, "--epochs", 2)
    assert_one_line_error(other, "--precision mixed_bfloat16")


@pytest.mark.slow
def test_stalled_run_ends_at_once_and_its_preset_is_completed(
    run, labelled, tiny_preset, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "keras_rpe.callbacks.InstanceEvaluation.evaluate", lambda self: {"val_ap50": 0.25}
    )
    out = tmp_path / "run"
    command = ("train", labelled, "--preset", tiny_preset, "--out", out, *SMALL, "--patience", 1)
    first = run(*command, "--epochs", 9)
    assert first.code == 0
    assert "Epoch 2/9" in first.out
    assert "Epoch 3/9" not in first.out
    (out / "preset" / "metadata.json").unlink()
    again = run(*command, "--epochs", 9)
    assert again.code == 0
    assert "ended after epoch 2" in again.out
    assert "Epoch 3/9" not in again.out
    assert InstanceSegmenter.from_preset(out / "preset").embedding_dim == 4


def test_loss_that_is_not_finite_and_a_full_disk(run, labelled, tiny_preset, tmp_path, monkeypatch):
    out = tmp_path / "run"
    command = ("train", labelled, "--preset", tiny_preset, "--out", out, *SMALL)
    outcome = run(*command, "--learning-rate", "1e38", "--repeats", 4, "--epochs", 2)
    assert_one_line_error(outcome, "not finite", "--learning-rate")
    assert not list(out.glob("epoch-*"))
    monkeypatch.setattr("os.replace", full_disk)
    assert_one_line_error(run(*command[:-6], "--out", tmp_path / "b"), "No space left")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--backbone", "vgg"], "backbone"),
        (["--learning-rate", "-1"], "--learning-rate"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--validation-split", "1.5"], "--validation-split"),
        (["--preset", "nothing"], "'nothing'"),
    ],
)
def test_bad_options_leave_nothing(run, labelled, tmp_path, options, part):
    outcome = run("train", labelled, "--out", tmp_path / "run", *options)
    assert_one_line_error(outcome, part)
    assert not (tmp_path / "run").exists()


def test_folder_with_another_run(run, labelled, tiny_preset, tmp_path):
    (tmp_path / "run" / "epoch-0003").mkdir(parents=True)
    command = ("train", labelled, "--preset", tiny_preset, "--out", tmp_path / "run", *SMALL)
    assert_one_line_error(run(*command), "settings.json")
    (tmp_path / "run" / "settings.json").write_text("[")
    assert_one_line_error(run(*command), "settings.json", "damaged")


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_ended_run_continues(run, labelled, tiny_preset, tmp_path, sent):
    out = tmp_path / "run"
    command = ["train", labelled, "--preset", tiny_preset, "--out", out, *SMALL]
    words = [str(word) for word in [*command, "--epochs", 10000]]
    with subprocess.Popen(
        [*COMMAND, *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob("epoch-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, sent)
        said = process.stderr.read()
    restored = TrainingState.restore(out)
    assert restored is not None
    epoch = restored[1]
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert str(out / f"epoch-{epoch:04d}") in said
    outcome = run(*command, "--epochs", epoch + 1)
    assert outcome.code == 0
    assert f"continuing after epoch {epoch}" in outcome.out
    assert f"Epoch {epoch + 1}/{epoch + 1}" in outcome.out
    assert log_epochs(out) == list(range(epoch + 1))


def test_ctrl_c_ends_a_long_call_of_the_backend(tmp_path) -> None:
    # Python sees the signal only when the call is over, which here is in an hour.
    code = (
        "import hashlib, sys, pathlib\n"
        "from keras_rpe_cli.train import quick_interruption\n"
        "with quick_interruption(pathlib.Path(sys.argv[1])):\n"
        "    print('computing', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
    )
    (tmp_path / "epoch-0007").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "computing\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert str(tmp_path / "epoch-0007") in said


def test_commands_survive_spaces_and_leave_out_what_was_not_given() -> None:
    settings = {"folder": "/x", "image_names": "y", "preset": "nuclei", "backbone": None, "seed": 1}
    lines = commands(Path("my images"), Path("out"), settings, 5)
    assert shlex.split(lines["train"])[2] == "my images"
    assert "--preset nuclei --seed 1" in lines["train"]
    assert "backbone" not in lines["train"]
    assert "'my images'" in lines["evaluate"]
