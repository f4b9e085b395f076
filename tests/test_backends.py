"""The same numbers on every backend: `pip install -e ".[test,jax]"`, `pytest -m slow`."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("backend_outputs.py")


def _outputs(backend: str, tmp_path: Path) -> dict[str, np.ndarray]:
    path = tmp_path / f"{backend}.npz"
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, str(SCRIPT), str(path)], env=environment, check=True)
    with np.load(path) as file:
        return dict(file)


@pytest.mark.slow
def test_jax_gives_the_numbers_of_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("jax", reason='needs JAX: pip install -e ".[jax]"')
    expected, result = _outputs("tensorflow", tmp_path), _outputs("jax", tmp_path)
    assert expected.keys() == result.keys()
    for name, value in expected.items():
        assert value.dtype == result[name].dtype, name
        np.testing.assert_allclose(result[name], value, atol=2e-5, err_msg=name)
