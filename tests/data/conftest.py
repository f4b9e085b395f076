"""Fixtures of the tests of data."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bsds500_root(data_root: Path) -> Path:
    """The folder of BSDS500, with its training and validation parts."""
    folder = data_root / "bsds500"
    if not folder.is_dir():
        pytest.skip(f"BSDS500 not found in {folder}")
    return folder
