import json

import keras
import numpy as np
import pytest
from test_instance_segmenter import tiny

from keras_rpe.models import InstanceSegmenter, preset_names
from keras_rpe.models.presets import CARD, CONFIG, METADATA, WEIGHTS

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 40)).astype("uint8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preset")
    model = tiny()
    model.save_to_preset(folder, notes={"task": "instance segmentation"})
    return model, folder


def test_round_trip(saved) -> None:
    model, folder = saved
    assert {path.name for path in folder.iterdir()} == {CARD, CONFIG, METADATA, WEIGHTS}
    loaded = InstanceSegmenter.from_preset(folder)
    for a, b in zip(loaded.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        loaded.predict_instances(IMAGE).labels, model.predict_instances(IMAGE).labels
    )
    metadata = json.loads((folder / METADATA).read_text())
    assert metadata["task"] == "instance segmentation"
    assert metadata["parameter_count"] == model.count_params()
    fresh = InstanceSegmenter.from_preset(str(folder), load_weights=False)
    assert any(not np.array_equal(a, b) for a, b in zip(fresh.get_weights(), model.get_weights()))


def test_saving_again_replaces_and_keeps_other_files(saved, tmp_path) -> None:
    model, _ = saved
    (tmp_path / "README.md").write_text("card")
    model.save_to_preset(tmp_path)
    model.save_to_preset(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {CARD, CONFIG, METADATA, WEIGHTS}
    assert (tmp_path / CARD).read_text() == "card"


def test_a_trained_model_leaves_its_optimizer_behind(tmp_path) -> None:
    model = tiny()
    model.save_to_preset(tmp_path / "a")
    model.compile("adam")
    model.train_on_batch(IMAGE[None, ..., None].astype("float32"), np.ones((1, 40, 40), "int32"))
    model.save_to_preset(tmp_path / "b")
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in "ab"]
    assert sizes[0] == sizes[1]


def test_unknown_presets_list_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"`preset` must be one of .*Received: preset='no-such'"
    ) as e:
        InstanceSegmenter.from_preset("no-such")
    assert all(name in str(e.value) for name in preset_names())


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_files_are_refused(saved, tmp_path, name: str, damage: str) -> None:
    _, folder = saved
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.name == name:
            middle = len(content) // 2
            if damage == "gone":
                continue
            cut = damage == "cut"
            content = (
                content[:middle] + (b"" if cut else b"#") + (b"" if cut else content[middle + 1 :])
            )
        (tmp_path / path.name).write_bytes(content)
    with pytest.raises(ValueError, match=r"missing or damaged|cannot be read|`preset` must"):
        InstanceSegmenter.from_preset(tmp_path)


def test_a_preset_that_names_other_code_is_refused(saved, tmp_path) -> None:
    _, folder = saved
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    evil = {"module": "os", "class_name": "system", "config": {}, "registered_name": "system"}
    (tmp_path / CONFIG).write_text(json.dumps(evil))
    import hashlib

    metadata = json.loads((tmp_path / METADATA).read_text())
    metadata["sha256"][CONFIG] = hashlib.sha256((tmp_path / CONFIG).read_bytes()).hexdigest()
    (tmp_path / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="must describe a keras_rpe model"):
        InstanceSegmenter.from_preset(tmp_path)


def test_nothing_half_written(saved, tmp_path, monkeypatch) -> None:
    model, _ = saved

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model), "save_weights", full)
    with pytest.raises(OSError, match="No space left"):
        model.save_to_preset(tmp_path)
    assert not list(tmp_path.iterdir())
    keras.utils.clear_session()
