import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keras_rpe
from keras_rpe_cli import app, main

ROOT = Path(keras_rpe.__file__).parents[1]
START = "import sys; from keras_rpe_cli import main; "
COMMAND = [sys.executable, "-c", START + "sys.exit(main())"]


def test_version(run):
    assert run("--version").out == f"keras-rpe {keras_rpe.__version__}\n"


def test_usage_errors(run):
    for arguments in (["nothing"], ["segment"], ["train", "x", "--out", "y", "--epochs", "0"]):
        outcome = run(*arguments)
        assert outcome.code == 2
        assert "Usage" in outcome.err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("two\n lines"), 1, "error: two lines\n"),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 1,
         "error: No space left on device: f\n"),
        (OSError("h5 says no"), 1, "error: h5 says no\n"),
        (MemoryError(), 1, "error: out of memory: MemoryError\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)  # fmt: skip
def test_errors_end_in_one_line(capfd, monkeypatch, error, code, text):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(app, "app", fail)
    assert main([]) == code
    assert capfd.readouterr().err == text


def test_presets_lists_what_is_known(run, tiny_preset, tmp_path, monkeypatch):
    bundled = run("presets")
    # In 100 columns, with the names whole.
    assert max(map(len, bundled.out.splitlines())) <= 100
    for row in keras_rpe.list_presets():
        assert f"\n{row.name} " in bundled.out
        assert row.figure
        assert row.parameters > 1e5
    monkeypatch.setattr("keras_rpe.models.presets.load._FOLDERS", (tmp_path,))
    assert run("presets").out == "no presets are bundled\n"
    for name, notes in (
        ("one", {"trained_on": "test data", "figures": {"ap50": 0.61234, "note": "held out"}}),
        ("two", {}),
    ):
        shutil.copytree(tiny_preset, tmp_path / name)
        file = tmp_path / name / "metadata.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **notes}))
    outcome = run("presets")
    assert (outcome.code, outcome.err) == (0, "")
    for part in ("one", "two", "InstanceSegmenter", "unet_small", "test data", "ap50: 0.612"):
        assert part in outcome.out


def test_help_in_a_process_without_tensorflow():
    check = START + "code = main(['--help']); sys.exit(code or 3 * ('tensorflow' in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert result.stderr == ""
    assert "segment" in result.stdout
    assert "presets" in result.stdout


def test_stderr_of_a_success_is_empty(labelled, tiny_preset, tmp_path):
    arguments = [labelled / "images", "--preset", tiny_preset, "--out", tmp_path / "out"]
    # As from a shell: what this process imported may have set the level, as JAX does.
    environment = {key: v for key, v in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(
        [*COMMAND, "segment", *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0
    assert result.stderr == ""


def test_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [*COMMAND, "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
