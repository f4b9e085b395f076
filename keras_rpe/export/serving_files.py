"""What TensorFlow Serving reads beside a SavedModel: its configuration and warm-up requests."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from keras_rpe.written_file import write_file

WARMUP_FILE = "tf_serving_warmup_requests"
CONFIG_FILE = "models.config"


def write_models_config(folder: Path) -> None:
    """Write `models.config`, for the server's option `--model_config_file`.

    It serves the model by the name of its folder, from `/models/NAME`, which is where the
    official container images look for models.

    Args:
        folder: Folder of the versions of a model.
    """
    config = model_server_config_pb2.ModelServerConfig()
    entry = config.model_config_list.config.add()
    entry.name = folder.name
    entry.base_path = f"/models/{folder.name}"
    entry.model_platform = "tensorflow"
    write_file(folder / CONFIG_FILE, text_format.MessageToString(config))


def write_warmup_requests(folder: Path, model_name: str, signatures: Container[str]) -> None:
    """Write the requests that a server answers to itself before it takes those of clients.

    Args:
        folder: `assets.extra` of a SavedModel, made if it is missing.
        model_name: Name under which the model is served.
        signatures: Names of its signatures; those that are not known get no request.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = _blobs()
    content = tf.io.encode_png(image).numpy()
    requests = {
        "serving_default": ("image", image[None]),
        "float_image": ("image", image[None].astype("float32")),
        "image_bytes": ("image_bytes", np.array([content], object)),
        "embeddings": ("image", image[None]),
    }
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as writer:
        for signature, (name, value) in requests.items():
            if signature not in signatures:
                continue
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def _blobs() -> np.ndarray:
    """An image with something to segment: bright discs on a dark ground, uint8 `(96, 96, 3)`."""
    rows, columns = np.mgrid[:96, :96] % 32 - 16
    disc = np.where(rows**2 + columns**2 < 100, 200, 20).astype("uint8")
    return np.repeat(disc[..., None], 3, axis=-1)
