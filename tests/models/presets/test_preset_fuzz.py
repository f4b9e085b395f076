"""Mutated files through the readers of presets: only `PresetError` comes out."""

import io
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import keras
import pytest
from checkpoints.test_reader_fuzz import Row, refused
from test_instance_segmenter import tiny

from keras_rpe.models import PresetError
from keras_rpe.models.presets import CARD, CONFIG, FILES, METADATA, WEIGHTS
from keras_rpe.models.presets.files import (
    build_model,
    check_config,
    check_size,
    read_json,
    unpack,
    weight_shapes,
)


def _archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name in (CONFIG, METADATA, WEIGHTS, CARD):
            target.writestr(f"nuclei/{name}", name.encode() * 9)
    return file.getvalue()


def _unpack(path: Path) -> None:
    target = path.parent / "unpacked"
    target.mkdir()
    try:
        unpack(path, target, "The archive", FILES)
    finally:
        assert {entry.name for entry in target.iterdir()} <= set(FILES)
        shutil.rmtree(target)
        assert {entry.name for entry in path.parent.iterdir()} == {path.name}


def _weights() -> bytes:
    layers = [keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        keras.Sequential(layers).save_weights(path)
        return path.read_bytes()


def _shapes(path: Path) -> None:
    weight_shapes(path, "The weights")


def _config() -> bytes:
    return json.dumps(keras.saving.serialize_keras_object(tiny())).encode()


def _check(path: Path) -> None:
    check_config(read_json(path), "The file")


def _build(path: Path) -> None:
    build_model(read_json(path), "The file", check_size)


ROWS = [
    Row("archive", ".zip", _archive, _unpack),
    Row("weights", ".weights.h5", _weights, _shapes),
    Row("config", ".json", _config, _check),
    Row("model", ".json", _config, _build),
]


@pytest.mark.parametrize("count", [50, pytest.param(50_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_mutants(row: Row, count: int, tmp_path: Path) -> None:
    assert refused(row, tmp_path, count, PresetError) > 0.3 * count
