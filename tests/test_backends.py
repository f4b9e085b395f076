"""The same numbers on every backend: `pip install -e ".[test,jax]" torch`, `pytest -m slow`."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


def _run(backend: str, script: str, *arguments: str) -> None:
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, str(HERE / script), *arguments], env=environment, check=True)


def _outputs(backend: str, tmp_path: Path) -> dict[str, np.ndarray]:
    path = tmp_path / f"{backend}.npz"
    _run(backend, "backend_outputs.py", str(path))
    with np.load(path) as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_tasks_train_without_tensorflow(backend: str) -> None:
    pytest.importorskip(backend)
    _run(backend, "backend_tasks.py")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_numbers_are_those_of_tensorflow(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    expected, result = _outputs("tensorflow", tmp_path), _outputs(backend, tmp_path)
    assert expected.keys() == result.keys()
    for name, value in expected.items():
        assert value.dtype == result[name].dtype, name
        np.testing.assert_allclose(result[name], value, rtol=1e-5, atol=2e-5, err_msg=name)
