"""Keeps TensorFlow out of processes that draw, as in the plugin."""

import pytest


@pytest.fixture(autouse=True)
def _seed() -> None:
    """In place of the seeds of Keras."""
