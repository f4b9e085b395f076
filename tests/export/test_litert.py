import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_rpe.export import export_litert, read_record
from keras_rpe.export.litert import read_litert_record
from keras_rpe.export.saved_model import ExportRecord
from keras_rpe.metrics import matching
from keras_rpe.models import InstanceSegmenter


def runner(path):
    return Interpreter(str(path), num_threads=2).get_signature_runner("serving_default")


def agreement(path, images, expected) -> float:
    """Mean over all true instances of the IoU with their match, 0 for those without one."""
    segment = runner(path)
    found = [segment(image=image[None])["labels"][0] for image in images]
    pairs = [matching(true, labels, 0.5) for true, labels in zip(expected, found, strict=True)]
    total = sum(pair.n_true * pair.mean_true_iou for pair in pairs if pair.n_true)
    return total / sum(pair.n_true for pair in pairs)


def test_signature_names_its_tensors(litert):
    segment = runner(litert)
    (image,) = segment.get_input_details().values()
    assert image["dtype"] == np.uint8
    assert list(image["shape_signature"]) == [-1, -1, -1, 3]
    names = {"labels", "scores", "boxes", "classes", "num_instances", "diameter"}
    assert set(segment.get_output_details()) == names


def test_loop_is_a_builtin_while_and_nothing_is_flex(litert):
    names = {entry["op_name"] for entry in Interpreter(str(litert))._get_ops_details()}
    assert "WHILE" in names
    assert not [name for name in names if "Flex" in name or "CUSTOM" in name]


@pytest.mark.parametrize(
    ("quantize", "least", "largest_share"),
    [
        # Of 16 bits: the diameter that is found moves, most on the smallest image.
        ("bundled", 0.97, 0.75),
        pytest.param(None, 0.995, 1.25, marks=pytest.mark.slow),
        pytest.param("float16", 0.97, 0.75, marks=pytest.mark.slow),
        pytest.param("dynamic", 0.97, 0.5, marks=pytest.mark.slow),
    ],
)
def test_labels_agree_with_the_keras_model(
    quantize, least, largest_share, nuclei, litert, tmp_path, real_images, real_labels
):
    path = litert
    if quantize != "bundled":
        path = nuclei.export(tmp_path / "small.tflite", format="litert", quantize=quantize)
    assert path.stat().st_size < largest_share * 4 * nuclei.count_params()
    assert agreement(path, real_images, real_labels) >= least


@pytest.mark.slow
def test_static_int8(nuclei, tmp_path, real_images, real_labels):
    path = nuclei.export(
        tmp_path / "int8.tflite",
        format="litert",
        quantize="int8",
        representative_data=[image for image in real_images if image.size < 257 * 257 * 3][:4],
    )
    interpreter = Interpreter(str(path))
    dtypes = {detail["index"]: detail["dtype"] for detail in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()
    outputs = [entry["outputs"][0] for entry in operators if entry["op_name"] == "CONV_2D"]
    assert {dtypes[output] for output in outputs} == {np.int8}
    assert path.stat().st_size < 0.5 * 4 * nuclei.count_params()
    # The diameter that is found moves most with int8, as the guide says.
    assert agreement(path, real_images, real_labels) >= 0.85
    assert read_record(path) == ExportRecord("litert", "int8", "nuclei")


def test_small_and_odd_sizes_and_batches(litert, nuclei, photo):
    segment = runner(litert)
    for size in ((8, 8), (9, 31), (65, 40)):
        image = photo[: size[0], : size[1]]
        labels = segment(image=image[None])["labels"][0]
        assert np.mean(labels == nuclei.predict_instances(image).labels) > 0.99
    batch = np.stack([photo[:60, :60], photo[-60:, -60:]])
    labels = segment(image=batch)["labels"]
    assert labels.shape == (2, 60, 60)
    assert labels.max(axis=(1, 2)).min() >= 1


def test_model_needs_a_missing_operator(monkeypatch, capfd, tmp_path):
    def with_flex(self, images, diameter=None):
        return {"labels": keras.ops.cast(keras.ops.erfinv(images[..., 0] / 300.0), "int32")}

    model = InstanceSegmenter("unet_small", embedding_dim=6, iterations=1)
    monkeypatch.setattr(InstanceSegmenter, "serve", with_flex)
    with pytest.raises(ValueError, match=r"`model` must need no operators .* with Erfinv$"):
        export_litert(model, tmp_path / "flex.tflite")
    assert len(capfd.readouterr().err) < 2000  # not the whole graph


def test_records(litert):
    assert read_record(litert) == ExportRecord("litert", "float16", "nuclei")
    function = tf.function(lambda x: x + 1.0, input_signature=[tf.TensorSpec((2,))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    assert read_litert_record(converter.convert()) is None


def test_bundled_file_is_that_of_the_preset(litert, nuclei, photo):
    assert litert.stat().st_size < 5e6
    assert agreement(litert, [photo], [nuclei.predict_instances(photo).labels]) >= 0.99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "model.lite"}, r"`filepath` must end in \.tflite.*model\.lite"),
        ({"quantize": "int4"}, "`quantize` .* Received: quantize='int4'"),
        ({"quantize": "int8"}, "`representative_data` must be given with quantize='int8'"),
        (
            {"representative_data": [np.zeros((9, 9), "uint8")]},
            "Received: quantize=None, representative_data=list",
        ),
        (
            {"quantize": "int8", "representative_data": []},
            "`representative_data` must hold at least one image",
        ),
        (
            {"quantize": "int8", "representative_data": [np.zeros((9, 9), "float32")]},
            "`representative_data` must hold uint8 images. Received: dtype=float32",
        ),
    ],
)
def test_wrong_arguments(small_model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        export_litert(small_model, **{"path": "model.tflite", **arguments})
    assert [*tmp_path.iterdir()] == []


def test_failed_write_leaves_the_old_file(small_model, tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    monkeypatch.setattr("keras_rpe.export.litert.convert", lambda *_: b"")
    monkeypatch.setattr("keras_rpe.export.litert._add_record", lambda *_: b"new")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        export_litert(small_model, path)
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]
