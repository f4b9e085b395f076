"""The README's Python examples, run as they stand, one after the other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 2


def _case(number: int) -> object:
    # Exports take minutes, and tests/export has their parts one by one.
    marks = [pytest.mark.slow] if ".export(" in BLOCKS[number] else []
    return pytest.param(number, marks=marks)


@pytest.mark.parametrize("number", [_case(number) for number in range(len(BLOCKS))])
def test_example(number: int, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README.md example {number + 1}", "exec"), {})


@pytest.mark.slow
def test_export_commands(tmp_path) -> None:
    section = README.read_text(encoding="utf-8").partition("\n## Export\n")[2].partition("\n## ")[0]
    fences = re.findall(r"^```(\w*)\n(.*?)^```", section, re.M | re.S)
    (block,) = [block for language, block in fences if not language]
    commands = block.splitlines()
    assert len(commands) >= 4
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in commands:
        assert command.startswith("keras-rpe ")
        result = subprocess.run(
            command.split(),
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
