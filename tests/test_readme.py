"""The README's examples, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
COMMANDS = re.findall(r"^(keras-rpe (?:export|serve-check) .*)$", README, re.M)


def _case(number: int) -> object:
    # Exports take minutes; tests/export covers each of them.
    marks = [pytest.mark.slow] if ".export(" in BLOCKS[number] else []
    return pytest.param(number, marks=marks)


@pytest.mark.parametrize("number", [_case(number) for number in range(len(BLOCKS))])
def test_example(number: int, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README.md example {number + 1}", "exec"), {})


@pytest.mark.slow
def test_export_commands(tmp_path) -> None:
    assert len(COMMANDS) >= 4
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in COMMANDS:
        result = subprocess.run(
            command.split(),
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
