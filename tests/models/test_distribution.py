"""Several devices train to the same losses as one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("two_replicas.py")


def _losses(kind: str) -> dict:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, str(SCRIPT), kind], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["instances", "proposals", "classes"])
def test_two_replicas_train_like_one_device(kind: str) -> None:
    found = _losses(kind)
    assert found["replicas"] == 2
    one, two = found[kind]
    assert len(one) == len(two) == 5
    assert one[-1] < one[0] - 0.05
    np.testing.assert_allclose(two, one, atol=1e-3)
