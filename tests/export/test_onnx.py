import sys

import keras
import numpy as np
import onnx as onnx_package
import onnxruntime
import pytest

from keras_rpe.export import export_onnx, read_record
from keras_rpe.metrics import matching
from keras_rpe.models import InstanceSegmenter

slow = pytest.mark.slow  # Writing the file of the preset takes a minute.


@pytest.fixture(scope="module")
def session(onnx):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(onnx), options)


def segment(session, image):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": image[None]})))


@slow
def test_inputs_and_outputs_are_named(session):
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[3]) == ("image", "tensor(uint8)", 3)
    names = {"labels", "scores", "boxes", "classes", "num_instances", "diameter"}
    assert {output.name for output in session.get_outputs()} == names


@slow
def test_grouping_is_a_loop_in_the_graph(onnx):
    model = onnx_package.load(onnx)
    assert "Loop" in {node.op_type for node in model.graph.node}
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx.ml"}


@slow
def test_labels_agree_with_the_keras_model(session, real_images, real_labels):
    values = []
    for image, labels in zip(real_images, real_labels, strict=True):
        pair = matching(labels, segment(session, image)["labels"][0], 0.5)
        values += [pair.mean_true_iou] if pair.n_true else []
    assert np.mean(values) >= 0.995


@slow
def test_tables_agree_with_the_keras_model(session, nuclei, photo):
    expected, result = nuclei.predict_instances(photo), segment(session, photo)
    count = int(result["num_instances"][0])
    assert count == len(expected) > 3
    np.testing.assert_array_equal(result["boxes"][0, :count], expected.boxes)
    np.testing.assert_allclose(result["scores"][0, :count], expected.scores, atol=1e-4)
    assert not result["boxes"][0, count:].any()


@slow
def test_record_names_the_preset(onnx):
    record = read_record(onnx)
    assert (record.format, record.source) == ("onnx", "nuclei")


def test_missing_extra_is_named(tmp_path, small_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx.convert", None)
    with pytest.raises(ImportError, match=r'tf2onnx is needed .* pip install "keras-rpe\[onnx\]"'):
        export_onnx(small_model, tmp_path / "model.onnx")
    assert [*tmp_path.iterdir()] == []


def test_ending_must_be_onnx(tmp_path, small_model):
    with pytest.raises(ValueError, match=r"`filepath` must end in \.onnx"):
        small_model.export(tmp_path / "model", format="onnx")


def test_integers_are_rounded_down(tmp_path, monkeypatch):
    model = InstanceSegmenter("unet_small", embedding_dim=4, iterations=1, find_diameter=False)

    def divide(images):
        values = keras.ops.cast(images[..., 0], "int32") - 100
        return {"labels": values // 7, "classes": values % 7}

    monkeypatch.setattr(model, "serve", divide)
    path = export_onnx(model, tmp_path / "model.onnx")
    assert read_record(path).format == "onnx"
    session = onnxruntime.InferenceSession(str(path))
    image = np.arange(243, dtype="uint8").reshape(9, 9, 3)
    values = image[..., 0].astype("int32") - 100
    result = segment(session, image)
    np.testing.assert_array_equal(result["labels"][0], values // 7)
    np.testing.assert_array_equal(result["classes"][0], values % 7)
