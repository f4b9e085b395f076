"""Fixtures shared by all tests."""

import os
from pathlib import Path

# As the commands do: what TensorFlow says of a processor would count as their output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

DATA_ROOT = Path(os.environ.get("KERAS_RPE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real images that README.md names; the tests that need it skip elsewhere."""
    if not DATA_ROOT.is_dir():
        pytest.skip(f"real images not found in {DATA_ROOT}: set KERAS_RPE_DATA to their folder")
    return DATA_ROOT


@pytest.fixture(scope="session")
def golden_root(data_root: Path) -> Path:
    """The folder of reference outputs beside the real images."""
    folder = data_root.parent / "golden"
    if not folder.is_dir():
        pytest.skip(f"reference outputs not found in {folder}")
    return folder
