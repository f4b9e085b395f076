"""What each part of the recipe of `nuclei` brings: equal steps, images held out.

    PYTHONPATH=examples python benchmarks/ablation_nuclei.py DSB2018 --out runs/ablation

DSB2018 is the folder that `examples/train_nuclei.py` takes. Each variant of the recipe is trained
from the same seed for the same number of steps. Each trained model is then read out in three ways:
without mean shift, with the mean shift of training, in which all pixels move, and with that of
prediction, in which a few seeds do. The thresholds of each are chosen on training images that were
kept from the updates; the table shows the average precision on fluorescence images held out.
Each row is a line in OUT/runs.csv; started again, those that are there are not repeated.
"""

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from train_nuclei import is_fluorescence, kept_for_updates

from keras_rpe.data import (
    LabelPair,
    find_label_pairs,
    label_folder,
    read_image,
    read_labels,
    split_pairs,
)
from keras_rpe.metrics import average_precision
from keras_rpe.models import InstanceSegmenter

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Variant:
    """What a run does in another way than the recipe."""

    model: dict[str, Any] = field(default_factory=dict)
    loss_of_loops: float = 1.0
    augment: bool = True


VARIANTS = {
    "recipe": Variant(),
    "no loss on the loops": Variant(loss_of_loops=0.0),
    "pairs of any distance": Variant({"neighborhood": None}),
    "1 loop": Variant({"iterations": 1}),
    "no rotation by position": Variant({"position_periods": None, "coordinates": True}),
    "background embedded": Variant({"position_periods": None, "embed_background": True}),
    "features of 64 channels": Variant({"fusion_filters": 64}),
    "no augmentation": Variant(augment=False),
    "EfficientNet-Lite0, ImageNet": Variant(
        {"backbone": "efficientnet_lite0", "backbone_weights": "imagenet"}
    ),
}


class WithoutMeanShift(keras.layers.Layer):
    """Stands in for a mean shift that leaves all where it is."""

    def call(self, inputs: Any, weights: Any = None, bandwidth: Any = None) -> Any:
        """Return the embeddings."""
        return inputs


def train(variant: Variant, names: list[str], options: argparse.Namespace) -> InstanceSegmenter:
    """Train a variant from the first seed."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = InstanceSegmenter(**variant.model)
    peak, warm = 2e-3, options.steps // 10
    rate = keras.optimizers.schedules.CosineDecay(
        peak / 100, options.steps - warm, alpha=1e-2, warmup_target=peak, warmup_steps=warm
    )
    weights = {
        name: variant.loss_of_loops if name.startswith("shift_") else 1.0 for name in model.output
    }
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0)
    model.compile(optimizer, loss_weights=weights)
    crops = label_folder(
        options.folder, crop_size=128, batch_size=8, seed=0, names=names, augment=variant.augment
    )
    model.fit(crops.repeat(), steps_per_epoch=options.steps, epochs=1, verbose=0)
    return model


def readouts(model: InstanceSegmenter) -> dict[str, Callable[[], None]]:
    """What changes the grouping of a model, by name."""
    seeded = model.seeded_mean_shift

    def use(grouping: Any) -> Callable[[], None]:
        return lambda: setattr(model, "seeded_mean_shift", grouping)

    return {"none": use(WithoutMeanShift()), "all pixels": use(None), "seeds": use(seeded)}


def precision(
    model: InstanceSegmenter, calibrating: list[LabelPair], held_out: list[LabelPair]
) -> list[float]:
    """Average precisions with the thresholds of the calibrating images."""
    model.optimize_thresholds(
        [read_image(pair.image) for pair in calibrating],
        [read_labels(pair.instances) for pair in calibrating],
    )
    labels = [read_labels(pair.instances) for pair in held_out]
    found = [model.predict_instances(read_image(pair.image)).labels for pair in held_out]
    return [float(value) for value in average_precision(labels, found, thresholds=THRESHOLDS)]


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=28, help="images held out that are used")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()

    # The split of examples/train_nuclei.py.
    training, held_out = split_pairs(find_label_pairs(options.folder), 1 / 7, seed=0)
    updating, calibrating = kept_for_updates(training)
    names = [pair.name for pair in updating]
    calibrating = [pair for pair in calibrating if is_fluorescence(pair)][:12]
    held_out = [pair for pair in held_out if is_fluorescence(pair)][: options.images]

    table = options.out / "runs.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(table.open())) if table.is_file() else []
    setting = f"{options.steps} steps, {len(held_out)} images"
    print(f"{setting}\n{'training':30} {'mean shift of the test':24} AP at {THRESHOLDS}")
    for variant in options.variants:
        done = [row for row in rows if (row["setting"], row["training"]) == (setting, variant)]
        if not done:
            began = time.perf_counter()
            model = train(VARIANTS[variant], names, options)
            seconds = round(time.perf_counter() - began)
            for readout, change in readouts(model).items():
                change()
                values = precision(model, calibrating, held_out)
                done.append(
                    {"setting": setting, "training": variant, "test": readout, "seconds": seconds}
                    | {f"AP {iou}": f"{ap:.3f}" for iou, ap in zip(THRESHOLDS, values)}
                )
            rows += done
            with table.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(done[0]))
                writer.writeheader()
                writer.writerows(rows)
        for row in done:
            shown = " ".join(row[f"AP {iou}"] for iou in THRESHOLDS)
            print(f"{row['training']:30} {row['test']:24} {shown}", flush=True)
    best = max(rows, key=lambda row: np.mean([float(row[f"AP {iou}"]) for iou in THRESHOLDS[:4]]))
    print(f"best: {best['training']}, tested with {best['test']}")


if __name__ == "__main__":
    main()
