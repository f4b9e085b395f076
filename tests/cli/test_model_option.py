import shutil
import warnings

import keras
import pytest
from command_line import assert_one_line_error

from keras_rpe.models import InstanceSegmenter, SemanticSegmenter
from keras_rpe.models.backbones import unet_encoder


def test_unknown_preset_lists_those_there_are(run, labelled, tmp_path, monkeypatch, tiny_preset):
    monkeypatch.setattr("keras_rpe.models.presets.load._FOLDERS", (tiny_preset.parent,))
    for words in (("segment", labelled / "images"), ("demo",)):
        outcome = run(*words, "--preset", "nothing", "--out", tmp_path / "out")
        assert_one_line_error(outcome, "'nothing'", "'tiny'")
        assert not (tmp_path / "out").exists()


def test_damaged_preset(run, labelled, tiny_preset, tmp_path):
    shutil.copytree(tiny_preset, tmp_path / "preset")
    path = tmp_path / "preset" / "config.json"
    path.write_bytes(path.read_bytes()[:-40])
    out = tmp_path / "out"
    outcome = run("segment", labelled / "images", "--preset", tmp_path / "preset", "--out", out)
    assert_one_line_error(outcome, "config.json")
    assert not out.exists()


def test_bad_model_file(run, labelled, tiny_model, tmp_path):
    tiny_model.save(tmp_path / "whole.keras")
    whole = (tmp_path / "whole.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "model.txt").write_text("no model")
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "other.keras")
    for name in ("cut.keras", "model.txt", "other.keras", "no.keras"):
        model, out = tmp_path / name, tmp_path / "out"
        outcome = run("segment", labelled / "images", "--model", model, "--out", out)
        assert_one_line_error(outcome, "--model", name)
        assert not out.exists()


def test_dropped_instances_are_a_warning(run, labelled, tiny_preset, tmp_path, monkeypatch):
    real = InstanceSegmenter.predict_instances

    def warning(self, *arguments):
        warnings.warn("too many\ninstances", stacklevel=1)
        return real(self, *arguments)

    monkeypatch.setattr(InstanceSegmenter, "predict_instances", warning)
    file = labelled / "images" / "a.png"
    outcome = run("segment", file, "--preset", tiny_preset, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, f"warning: {file}: too many instances\n")


@pytest.mark.slow
def test_models_of_tasks_that_a_command_does_not_take(run, labelled, tmp_path):
    model = SemanticSegmenter(unet_encoder((4, 8), blocks=1), embedding_dim=4, fusion_filters=4)
    preset = tmp_path / "classes"
    model.save_to_preset(preset)
    exported = SemanticSegmenter.from_preset(preset).export(tmp_path / "c.tflite", format="litert")
    for words in (
        ("evaluate", labelled, "--preset", preset),
        ("serve-check", exported),
        ("serve-check", exported, "--preset", preset),
    ):
        wanted = f"{preset} must be of class InstanceSegmenter or BoundaryDetector"
        assert_one_line_error(run(*words), wanted, "of class SemanticSegmenter")


@pytest.mark.parametrize("command", ["segment", "boundaries", "train", "demo"])
def test_preset_of_another_task(run, labelled, tiny_preset, boundary_preset, tmp_path, command):
    preset = tiny_preset if command == "boundaries" else boundary_preset
    place = {"demo": [], "train": [labelled]}.get(command, [labelled / "images"])
    outcome = run(command, *place, "--preset", preset, "--out", tmp_path / "out")
    hint = {"boundaries": "`keras-rpe segment`"}.get(command, "`keras-rpe boundaries`")
    assert_one_line_error(outcome, f"--preset {preset} must be", hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["segment", "train"])
def test_out_that_cannot_be_used(run, labelled, tiny_preset, tmp_path, monkeypatch, command):
    (tmp_path / "file").write_text("mine")
    place = labelled / ("images" if command == "segment" else "")
    words = (command, place, "--preset", tiny_preset, "--out")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert_one_line_error(run(*words, out), "--out", f"{tmp_path / 'file'} is a file")
    assert (tmp_path / "file").read_text() == "mine"

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert_one_line_error(run(*words, tmp_path / "o"), "Read-only", str(tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_preset_or_model(run, labelled, tiny_preset, tmp_path):
    both = ["--preset", tiny_preset, "--model", tmp_path / "m.keras"]
    for command, options in (
        ("segment", []),
        ("segment", both),
        ("boundaries", both),
        ("evaluate", []),
        ("train", ["--preset", "nuclei", "--backbone", "unet_small"]),
    ):
        out = [] if command == "evaluate" else ["--out", tmp_path / "out"]
        outcome = run(command, labelled / "images", *options, *out)
        assert outcome.code == 2
        assert "either" in outcome.err
    assert not (tmp_path / "out").exists()
