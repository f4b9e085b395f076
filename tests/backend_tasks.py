"""Run as a script, without TensorFlow: every task trains, predicts, is saved and loaded again."""

# ruff: noqa: E402 TensorFlow is hidden before the imports.
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path

find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *others: (  # type: ignore[method-assign]
    None if name.split(".")[0] == "tensorflow" else find_spec(name, *others)
)

import keras
import numpy as np

from keras_rpe import layers, list_presets, models

image = np.random.default_rng(0).integers(0, 256, (2, 48, 40, 3), dtype="uint8")
labels = np.zeros((2, 48, 40), "int32")
labels[:, 4:20, 5:20], labels[:, 24:40, 16:36] = 1, 2


def check_task(model: models.Task, predict: str, targets: np.ndarray) -> None:
    """Train for a step, predict, and compare with what the saved model predicts."""
    model.compile("adam")
    history = model.fit(image.astype("float32"), targets, batch_size=2, verbose=0).history
    assert np.isfinite(history["loss"]).all(), history
    path = Path(tempfile.mkdtemp()) / "model.keras"
    model.save(path)
    found, again = (
        vars(getattr(one, predict)(image[0])) for one in (model, keras.saving.load_model(path))
    )
    for name, value in found.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)


check_task(models.InstanceSegmenter("unet_small"), "predict_instances", labels)
check_task(models.ObjectProposer("unet_small"), "predict_proposals", labels)
check_task(models.BoundaryDetector("unet_small"), "predict_boundaries", (labels > 0) * 1.0)
check_task(models.SemanticSegmenter("unet_small", num_classes=3), "predict_classes", labels)
for row in list_presets():
    models.Task.from_preset(row.name)

# The bandwidth learns.
points = keras.Input((None, 8))
network = keras.Model(points, layers.MeanShiftRNN(trainable_bandwidth=True)(points))
network.compile("sgd", "mse")
x = np.random.default_rng(0).normal(size=(2, 50, 8)).astype("float32")
x /= np.linalg.norm(x, axis=-1, keepdims=True)
before = float(network.layers[1].log_bandwidth)
network.fit(x, x[:, ::-1], verbose=0)
assert np.isfinite(float(network.layers[1].log_bandwidth))
assert float(network.layers[1].log_bandwidth) != before
assert "tensorflow" not in sys.modules
