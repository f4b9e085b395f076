"""A small model, and its preset with a change to its files and checksums that agree with it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_instance_segmenter import tiny

from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.presets import CONFIG, METADATA, WEIGHTS


@pytest.fixture(scope="session")
def model() -> InstanceSegmenter:
    return tiny()


@pytest.fixture(scope="session")
def preset(model: InstanceSegmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    model.save_to_preset(folder, {"task": "instance segmentation"})
    return folder


@pytest.fixture
def forged(preset: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the preset with another configuration or weights file, and right checksums."""

    def forge(
        edit: Callable[[dict[str, Any]], Any] | None = None, weights: bytes | None = None
    ) -> Path:
        folder = tmp_path / "forged"
        shutil.copytree(preset, folder, dirs_exist_ok=True)
        if edit is not None:
            config = json.loads((folder / CONFIG).read_text())
            (folder / CONFIG).write_text(json.dumps(edit(config) or config))
        if weights is not None:
            (folder / WEIGHTS).write_bytes(weights)
        metadata = json.loads((folder / METADATA).read_text())
        for name in (CONFIG, WEIGHTS):
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            metadata["sha256"][name] = digest
        (folder / METADATA).write_text(json.dumps(metadata))
        return folder

    return forge
