import numpy as np
import pytest
from command_line import assert_one_line_error
from PIL import Image

from keras_rpe.data import write_image
from keras_rpe.export import read_record
from keras_rpe.ops.backend import device_name


def test_litert_file(exported, tiny_preset):
    path, printed = exported
    assert printed == f"{device_name()}\n{path}: {path.stat().st_size / 1e6:.1f} MB\n"
    assert read_record(path).source == str(tiny_preset)


@pytest.mark.slow
def test_saved_model_of_a_keras_file(run, tiny_model, tmp_path):
    source = tmp_path / "tiny.keras"
    tiny_model.save(source)
    outcome = run("export", source, tmp_path / "tiny")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[1].startswith(f"{tmp_path / 'tiny' / '1'}: ")
    assert read_record(tmp_path / "tiny").source == str(source)


@pytest.mark.slow
def test_int8_takes_a_folder_of_images(run, tiny_preset, labelled, tmp_path):
    out = tmp_path / "int8.tflite"
    outcome = run("export", tiny_preset, out, "--quantize", "int8", "--images", labelled / "images")
    assert (outcome.code, outcome.err) == (0, "")
    assert read_record(out).quantize == "int8"


def test_wrong_options(run, tiny_preset, tmp_path):
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png", np.zeros((16, 16, 3), "uint8"))
    Image.fromarray(np.zeros((16, 16), "uint16")).save(tmp_path / "images" / "b.png")
    before = set(tmp_path.iterdir())
    for preset, options, part in (
        (tiny_preset, ["--quantize", "int8"], "representative_data"),
        (tiny_preset, ["--quantize", "int8", "--images", tmp_path / "images"], "uint16"),
        (tiny_preset, ["--quantize", "float16", "--format", "onnx"], "format='litert'"),
        (tiny_preset, ["--images", "nowhere"], "nowhere"),
        ("nothing", [], "'nothing'"),
    ):
        assert_one_line_error(run("export", preset, tmp_path / "x.tflite", *options), part)
    assert set(tmp_path.iterdir()) == before
