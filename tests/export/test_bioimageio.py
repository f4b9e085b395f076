import zipfile

import numpy as np
import pytest

from keras_rpe.export import export_bioimageio
from keras_rpe.models import InstanceSegmenter


@pytest.mark.slow
def test_the_package_passes_the_test_of_bioimageio(tmp_path, monkeypatch, real_images):
    core = pytest.importorskip("bioimageio.core", reason="needs the extra bioimageio")
    onnxruntime = pytest.importorskip("onnxruntime")
    image = real_images[0]
    model = InstanceSegmenter.from_preset("nuclei")
    path = model.export(tmp_path / "nuclei.zip", "bioimageio", representative_data=[image])
    assert [file.name for file in tmp_path.iterdir()] == ["nuclei.zip"]
    monkeypatch.chdir(tmp_path)  # It unpacks the SavedModel where it runs.
    summary = core.test_model(path)
    assert summary.status == "passed", summary.format()
    runs = {detail.name for detail in summary.details if "outputs" in detail.name}
    for weights in ("onnx", "tensorflow_saved_model_bundle"):
        assert f"Reproduce test outputs from test inputs ({weights})" in runs
    with zipfile.ZipFile(path) as package:
        package.extractall(tmp_path)
    labels = np.load(tmp_path / "test_labels.npy")
    assert np.mean(labels[0] == model.predict_instances(image).labels) > 0.99
    session = onnxruntime.InferenceSession(tmp_path / "weights.onnx")
    pixels = {"image": np.load(tmp_path / "test_image.npy")}
    np.testing.assert_array_equal(session.run(["labels"], pixels)[0], labels)


def test_wrong_arguments(tmp_path):
    model = InstanceSegmenter("unet_small", num_classes=1)
    with pytest.raises(ValueError, match=r"must end in .zip"):
        export_bioimageio(model, tmp_path / "a.onnx")
    pytest.importorskip("bioimageio.core", reason="needs the extra bioimageio")
    with pytest.raises(ValueError, match="uint8"):
        export_bioimageio(model, tmp_path / "a.zip", np.zeros((64, 64), "float32"))
    assert not list(tmp_path.iterdir())
