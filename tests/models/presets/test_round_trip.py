"""`save_to_preset` and `from_preset` on every backend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("round_trip.py")


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_outputs_are_equal_bit_for_bit(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend, reason=f'needs {backend}: pip install -e ".[jax]"')
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{backend} 4 outputs are equal"
