import errno
import os
import shutil

import keras
import pytest
from cli_outcome import assert_one_line_error

from keras_rpe.models import SemanticSegmenter
from keras_rpe.models.backbones import unet_encoder


def test_unknown_preset_lists_those_there_are(run, labelled, tmp_path, monkeypatch, tiny_preset):
    monkeypatch.setattr("keras_rpe.models.presets.load._FOLDERS", (tiny_preset.parent,))
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


@pytest.mark.slow
def test_models_of_tasks_that_a_command_does_not_take(run, labelled, tmp_path):
    model = SemanticSegmenter(unet_encoder((4, 8), blocks=1), embedding_dim=4, fusion_filters=4)
    model.save_to_preset(tmp_path / "classes")
    outcome = run("evaluate", labelled, "--preset", tmp_path / "classes")
    wanted = "must be an InstanceSegmenter or a BoundaryDetector", "of class SemanticSegmenter"
    assert_one_line_error(outcome, *wanted, f"--preset {tmp_path / 'classes'}")
    exported = SemanticSegmenter.from_preset(tmp_path / "classes").export(
        tmp_path / "classes.tflite", format="litert"
    )
    outcome = run("serve-check", exported)
    assert_one_line_error(outcome, *wanted, "the exported model")
    outcome = run("serve-check", exported, "--preset", tmp_path / "classes")
    assert_one_line_error(outcome, *wanted, "--preset")


@pytest.mark.parametrize("command", ["segment", "boundaries", "train", "demo"])
def test_preset_of_another_task(run, labelled, tiny_preset, boundary_preset, tmp_path, command):
    preset = tiny_preset if command == "boundaries" else boundary_preset
    place = {"demo": [], "train": [labelled]}.get(command, [labelled / "images"])
    outcome = run(command, *place, "--preset", preset, "--out", tmp_path / "out")
    hint = {"boundaries": "`keras-rpe segment`"}.get(command, "`keras-rpe boundaries`")
    assert_one_line_error(outcome, f"--preset {preset} must be", hint)
    assert not (tmp_path / "out").exists()


def test_out_that_cannot_be_used(run, labelled, tiny_preset, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    for command in ("segment", "train"):
        place = labelled / ("images" if command == "segment" else "")
        words = (command, place, "--preset", tiny_preset, "--out")
        assert_one_line_error(run(*words, tmp_path / "file"), "--out", "is a file")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    outcome = run("segment", labelled / "images", "--preset", tiny_preset, "--out", tmp_path / "o")
    assert_one_line_error(outcome, "Read-only", str(tmp_path / "o"))
    assert not (tmp_path / "o").exists()
    assert (tmp_path / "file").read_text() == "mine"


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
