import shutil

import keras
import pytest
from cli_outcome import assert_one_line_error


def test_unknown_preset_lists_those_there_are(run, labelled, tmp_path, monkeypatch, tiny_preset):
    monkeypatch.setattr("keras_rpe.models.presets.preset_folders._FOLDERS", (tiny_preset.parent,))
    out = tmp_path / "out"
    outcome = run("segment", labelled / "images", "--preset", "nothing", "--out", out)
    assert_one_line_error(outcome, "'nothing'", "'tiny'")
    assert not out.exists()


@pytest.mark.parametrize("file", ["model.weights.h5", "config.json", "metadata.json"])
def test_damaged_preset(run, labelled, tiny_preset, tmp_path, file):
    shutil.copytree(tiny_preset, tmp_path / "preset")
    path = tmp_path / "preset" / file
    path.write_bytes(path.read_bytes()[:-40])
    out = tmp_path / "out"
    outcome = run("segment", labelled / "images", "--preset", tmp_path / "preset", "--out", out)
    assert_one_line_error(outcome, file)
    assert not out.exists()


def test_bad_model_file(run, labelled, tiny_model, tmp_path):
    tiny_model.save(tmp_path / "whole.keras")
    whole = (tmp_path / "whole.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    (tmp_path / "changed.keras").write_bytes(whole[:middle] + b"\0" * 400 + whole[middle + 400 :])
    (tmp_path / "empty.keras").touch()
    (tmp_path / "model.txt").write_text("no model")
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "other.keras")
    names = ("cut.keras", "changed.keras", "empty.keras", "model.txt", "other.keras", "no.keras")
    for name in names:
        model, out = tmp_path / name, tmp_path / "out"
        outcome = run("segment", labelled / "images", "--model", model, "--out", out)
        assert_one_line_error(outcome, "--model", name)
        assert not out.exists()


def test_dropped_instances_are_a_warning(run, labelled, tiny_preset, tmp_path, monkeypatch):
    import warnings

    from keras_rpe.models import InstanceSegmenter

    real = InstanceSegmenter.predict_instances

    def warning(self, image):
        warnings.warn("too many\ninstances", stacklevel=1)
        return real(self, image)

    monkeypatch.setattr(InstanceSegmenter, "predict_instances", warning)
    file = labelled / "images" / "a.png"
    outcome = run("segment", file, "--preset", tiny_preset, "--out", tmp_path / "out")
    assert outcome.code == 0
    assert outcome.err == f"warning: {file}: too many instances\n"
