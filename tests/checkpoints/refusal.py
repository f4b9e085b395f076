"""Files that a reader must refuse."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from keras_rpe.checkpoints import CheckpointError, read_matconvnet

MAX_BYTES = 200 << 20


def refused(path: Path, reason: str) -> None:
    """Refused with one sentence, in little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=reason) as caught:
            read_matconvnet(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < MAX_BYTES
