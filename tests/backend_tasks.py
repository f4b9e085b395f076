"""Run as a script, without TensorFlow: every task trains, predicts, is saved and loaded again."""

import os
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Go through the package as a user of another backend does."""
    import keras

    from keras_rpe import layers, list_presets, models
    from keras_rpe.data import label_folder, write_image, write_labels
    from keras_rpe_cli import main as run

    image = np.random.default_rng(0).integers(0, 100, (2, 48, 40, 3), dtype="uint8")
    labels = np.zeros((2, 48, 40), "int32")
    labels[:, 4:20, 5:20], labels[:, 24:40, 16:36] = 1, 2
    image[labels > 0] += 150
    folder = Path(tempfile.mkdtemp())

    def check_task(model: Any, predict: str, targets: np.ndarray) -> None:
        """Train for a step, predict, and compare with what the saved model predicts."""
        model.compile("adam")
        history = model.fit(image.astype("float32"), targets, batch_size=2, verbose=0).history
        assert np.isfinite(history["loss"]).all(), history
        model.save(folder / "model.keras")
        again = keras.saving.load_model(folder / "model.keras")
        found, expected = (vars(getattr(one, predict)(image[0])) for one in (again, model))
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        batch = again.predict(image.astype("float32"), verbose=0)
        assert all(len(part) == len(image) for part in batch.values())

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
    (before,) = network.get_weights()
    network.fit(x, x[:, ::-1], verbose=0)
    (after,) = network.get_weights()
    assert np.isfinite(after)
    assert after != before

    for part in ("images", "instances"):
        (folder / part).mkdir()
    for number in range(6):
        write_image(folder / f"images/{number}.png", image[0])
        write_labels(folder / f"instances/{number}.png", labels[0])
    model = models.InstanceSegmenter("unet_small")
    model.compile("adam")
    model.fit(label_folder(folder).crops(32, 4), epochs=2, verbose=0)
    preset, out = f"{folder}/run/preset", ["--out", f"{folder}/out"]
    small = ["--epochs", "1", "--crop-size", "32", "--batch-size", "4", "--repeats", "4"]
    assert run(["train", str(folder), "--out", f"{folder}/run", *small]) == 0
    assert run(["segment", f"{folder}/images", "--preset", preset, *out]) == 0
    assert run(["evaluate", str(folder), "--preset", preset]) == 0
    assert run(["boundaries", f"{folder}/images/0.png", "--preset", "boundaries", *out]) == 0
    assert run(["export", "nuclei", f"{folder}/model.tflite"]) == 1
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    find_spec = PathFinder.find_spec
    # Hidden where it is installed.
    PathFinder.find_spec = lambda name, *others: (  # type: ignore[method-assign]
        None if name.split(".")[0] == "tensorflow" else find_spec(name, *others)
    )
    main()
