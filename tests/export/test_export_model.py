import re

import keras
import pytest

from keras_rpe.models import InstanceSegmenter


@pytest.fixture(scope="module")
def small_model() -> InstanceSegmenter:
    return InstanceSegmenter("unet_small", embedding_dim=6, iterations=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "torch"}, "`format` must be one of 'tf_saved_model', 'litert', 'onnx'."),
        ({"quantize": "float16"}, "go with format='litert'. Received: format='tf_saved_model'"),
        ({"format": "onnx", "representative_data": []}, "go with format='litert'"),
        ({"format": "onnx", "max_pixels": 9}, "`max_pixels` goes with format='tf_saved_model'"),
    ],
)
def test_arguments_must_go_together(small_model, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small_model.export(tmp_path / "model", **arguments)
    assert [*tmp_path.iterdir()] == []


def test_other_backends_are_told_the_way(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Received: backend='jax'"):
        small_model.export(tmp_path / "model")
