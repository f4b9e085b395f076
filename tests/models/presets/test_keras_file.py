import json
import zipfile

import keras
import numpy as np
import pytest

from keras_rpe.models import InstanceSegmenter, PresetError, load_keras_file
from keras_rpe.models.presets import CONFIG, WEIGHTS

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 40)).astype("uint8")


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    model.save(path)
    return path


def _rewritten(saved, path, **members):
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, members.get(name.partition(".")[0], source.read(name)))
    return path


def test_round_trip_of_a_compiled_model(tmp_path, model) -> None:
    compiled = InstanceSegmenter.from_config(model.get_config())
    compiled.compile("adam")
    compiled.optimizer.build(compiled.trainable_variables)
    compiled.save(tmp_path / "model.keras")
    loaded = load_keras_file(tmp_path / "model.keras")
    assert isinstance(loaded, InstanceSegmenter)
    for a, b in zip(loaded.get_weights(), compiled.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    outputs = [m.pixel_network(IMAGE[None, ..., None], training=False) for m in (loaded, compiled)]
    for a, b in zip(*outputs):
        np.testing.assert_array_equal(a, b)


def test_a_lambda_layer_is_refused(saved, tmp_path) -> None:
    config = json.loads(zipfile.ZipFile(saved).read(CONFIG))
    config["config"]["decoder"] = keras.saving.serialize_keras_object(
        keras.layers.Lambda(lambda x: x)
    )
    path = _rewritten(saved, tmp_path / "evil.keras", config=json.dumps(config))
    with pytest.raises(PresetError, match="Lambda can run code"):
        load_keras_file(path)


def test_other_models_are_refused(tmp_path) -> None:
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "other.keras")
    with pytest.raises(PresetError, match="must describe a keras_rpe model"):
        load_keras_file(tmp_path / "other.keras")


def test_a_bomb_is_refused(saved, tmp_path) -> None:
    path = tmp_path / "bomb.keras"
    with (
        zipfile.ZipFile(saved) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        target.writestr(CONFIG, source.read(CONFIG))
        target.writestr(WEIGHTS, bytes(300_000_000))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(PresetError, match="grows from"):
        load_keras_file(path)


def test_a_large_configuration_is_refused(saved, tmp_path) -> None:
    path = _rewritten(saved, tmp_path / "large.keras", config='{"a": "' + "a" * 9_000_000 + '"}')
    with pytest.raises(PresetError, match="must be smaller than"):
        load_keras_file(path)


def test_damaged_files_are_refused(saved, tmp_path) -> None:
    content = saved.read_bytes()
    path = tmp_path / "damaged.keras"
    for damaged in (b"", b"text", content[:100], content[: len(content) // 2], content[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(PresetError, match=r"damaged|must"):
            load_keras_file(path)
    with pytest.raises(PresetError, match="No such file"):
        load_keras_file(tmp_path / "missing.keras")
