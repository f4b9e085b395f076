"""Store what the bundled presets and their exports predict, and compare it after a change.

python tools/pinned_predictions.py write pins/ DATA   # before
python tools/pinned_predictions.py compare pins/ DATA  # after: exits with 1 where anything differs

DATA holds images: `dsb2018`, `bsds500`, `coco` and `mnist_10k.npz` in the layouts that CONTRIBUTING
names. `write` also saves each preset, and a small compiled model of each task, as Keras files and
preset folders, which `compare` loads: what was saved before the change must load after it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_rpe
from keras_rpe import data, models

PRESETS = {
    "nuclei": "InstanceSegmenter",
    "digits": "InstanceSegmenter",
    "digits_instances": "InstanceSegmenter",
    "objects": "ObjectProposer",
    "boundaries": "BoundaryDetector",
}
TASKS = ("InstanceSegmenter", "ObjectProposer", "BoundaryDetector", "SemanticSegmenter")


def images(preset: str, folder: Path) -> list[np.ndarray]:
    """Three real images of the kind that the preset is for."""
    if preset.startswith("digits"):
        scenes = next(iter(data.digits(folder / "mnist_10k.npz", batch_size=3, seed=0)))[0]
        return list(np.asarray(scenes))
    places = {
        "nuclei": "dsb2018/train/images/*",
        "objects": "coco/images/*",
        "boundaries": "bsds500/images/val/*",
    }
    return [data.read_image(path) for path in sorted(folder.glob(places[preset]))[:3]]


def outputs(predictor: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    """What a model or an export of any task gives for one image, as arrays."""
    if hasattr(predictor, "serve"):
        array = np.atleast_3d(image).astype("float32")
        array = np.repeat(array, 3, -1) if array.shape[-1] == 1 else array[..., :3]
        found = predictor.predict_on_batch(array[None])
        return {key: np.asarray(keras.ops.convert_to_numpy(value)) for key, value in found.items()}
    small = image[:256, :256]
    small = small if small.dtype == "uint8" else (255 * (small / small.max())).astype("uint8")
    small = np.repeat(small[..., None], 3, -1) if small.ndim == 2 else small[..., :3]
    return {key: np.asarray(value) for key, value in predictor.predict_tables(small[None]).items()}


def predictions(pins: Path, folder: Path, is_new: bool) -> dict[str, np.ndarray]:
    """All outputs by name; with `is_new` the models are also saved into `pins`."""
    found: dict[str, np.ndarray] = {}

    def add(name: str, predictor: Any, pictures: list[np.ndarray]) -> None:
        for k, image in enumerate(pictures):
            found.update({f"{name}/{k}/{key}": v for key, v in outputs(predictor, image).items()})
        print(name, flush=True)

    for preset, task in PRESETS.items():
        pictures = images(preset, folder)
        model = getattr(models, task).from_preset(preset)
        add(preset, model, pictures)
        if is_new:
            model.save(pins / f"{preset}.keras")
        add(f"{preset}.keras", keras.saving.load_model(pins / f"{preset}.keras"), pictures)
        with tempfile.TemporaryDirectory() as exports:
            for kind, place in (("tf_saved_model", "model"), ("litert", "model.tflite")):
                path = Path(exports) / place
                model.export(path, format=kind)
                add(f"{preset}/{kind}", keras_rpe.export.load_served(path), pictures)
    noise = [np.random.default_rng(k).integers(0, 255, (48, 64, 3), "uint8") for k in range(2)]
    for task in TASKS:
        cls = getattr(models, task)
        if is_new:
            keras.utils.set_random_seed(0)
            model = cls("unet_small", **({"num_classes": 2} if task == "SemanticSegmenter" else {}))
            model.compile("adam")
            model.save(pins / f"{task}.keras")
            model.save_to_preset(pins / task)
        add(task, keras.saving.load_model(pins / f"{task}.keras"), noise)
        add(f"{task}/preset", cls.from_preset(pins / task), noise)
    return found


def differences(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> list[str]:
    """A line for each output that is not as it was: floats to 1e-6, all else exactly."""
    lines = [f"{name}: only on one side" for name in sorted(old.keys() ^ new.keys())]
    for name in sorted(old.keys() & new.keys()):
        a, b = old[name], new[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            lines.append(f"{name}: {a.shape} {a.dtype}, now {b.shape} {b.dtype}")
        elif not np.allclose(a, b, rtol=0, atol=1e-6 if a.dtype.kind == "f" else 0):
            lines.append(f"{name}: differs by up to {np.abs(a.astype(float) - b).max():.3g}")
    return lines


def main() -> int:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["write", "compare"])
    parser.add_argument("pins", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    arguments.pins.mkdir(parents=True, exist_ok=True)
    file = arguments.pins / "predictions.npz"
    new = predictions(arguments.pins, arguments.data, arguments.command == "write")
    if arguments.command == "write":
        np.savez_compressed(file, **new)
        print(f"{len(new)} arrays written to {file}")
        return 0
    with np.load(file) as stored:
        lines = differences(dict(stored), new)
        identical = sum(np.array_equal(stored[name], new[name]) for name in stored if name in new)
    print("\n".join(lines) or f"all {len(new)} arrays as before, {identical} bit for bit")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
