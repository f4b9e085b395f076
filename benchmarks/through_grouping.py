"""Measure what it does for instances to backpropagate through the grouping.

    python benchmarks/through_grouping.py DSB2018 BITDEPTH TNBC --left-out KROMP --out runs/through

Kong & Fowlkes (CVPR 2018), section 4: a loss after each loop of mean shift lets learning focus on
what clustering will not mend. Two losses are compared, in the recipe of `examples/train_nuclei.py`,
at equal numbers of updates and with the same seeds: the pair loss before and after every loop, and
the pair loss before the loops only, with the weight of all of them. Each network is read out with
the mean shift of prediction and without any, with thresholds chosen for each on every tenth
training image, and measured on a folder that was not trained on, at the true median diameter of
each image. A nucleus touches another if they are at most two pixels apart. Each readout of a run is
one line in OUT/runs.csv, beside the weights; if you start it again, finished runs are not repeated.
"""

import argparse
import operator
import sys
from functools import reduce
from pathlib import Path

import keras
import numpy as np
from scipy import ndimage
from seeds import print_ranges, repeated

from keras_rpe.data import LabelledImages, label_folder
from keras_rpe.metrics import Matching, matching
from keras_rpe.models import InstanceSegmenter

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from train_nuclei import DIAMETER, LEARNING_RATE, LOSS_WEIGHTS, balanced, kept_for_updates

LOSSES = ("before and after", "before")
READOUTS = ("mean shift", "no mean shift")
FIGURES = ("ap50", "ap70", "touching", "apart")


class Unshifted(InstanceSegmenter):
    """Reads instances off the embeddings as the network gives them."""

    def shift(self, embedding, scores, return_sequences=False, grid=None):
        """Leave them as they are."""
        return embedding


def trained(loss: str, seed: int, folders: list[LabelledImages], steps: int) -> InstanceSegmenter:
    """Train in one of the two ways."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = InstanceSegmenter("unet_small")
    weights = {name: LOSS_WEIGHTS.get(name, 1.0) for name in model.output}
    if loss == "before":
        loops = [name for name in weights if name.startswith("shift_")]
        weights |= {"embedding": 1.0 + len(loops), **dict.fromkeys(loops, 0.0)}
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / 100,
        steps - steps // 50,
        alpha=1e-2,
        warmup_target=LEARNING_RATE,
        warmup_steps=steps // 50,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0)
    model.compile(optimizer, loss_weights=weights)
    crops = balanced(folders).crops(
        128, batch_size=8, augment="microscopy", diameter=DIAMETER, seed=seed
    )
    model.fit(crops.repeat(), steps_per_epoch=steps, epochs=1, verbose=0)
    return model


def touching(labels: np.ndarray) -> np.ndarray:
    """The instances that are at most two pixels from another, with their numbers from 1."""
    least = ndimage.minimum_filter(np.where(labels > 0, labels, labels.max() + 1), 5)
    most = ndimage.maximum_filter(labels, 5)
    numbers = labels[(labels > 0) & ((least != labels) | (most != labels))]
    return np.where(np.isin(labels, numbers), labels, 0)


def figures(model: InstanceSegmenter, images: LabelledImages) -> dict[str, float]:
    """AP at two thresholds, and the recall at IoU 0.5 of nuclei that touch and of others."""
    nothing = {"ap50": Matching(0.5, 0, 0, 0, 0.0), "ap70": Matching(0.7, 0, 0, 0, 0.0)}
    total = {**nothing, "touching": nothing["ap50"], "apart": nothing["ap50"]}
    for one in images:
        labels = one.instances.astype(np.int64)
        if not labels.any():
            continue
        areas = np.bincount(labels[labels > 0])
        diameter = float(np.median(np.sqrt(4 / np.pi * areas[areas > 0])))
        predicted = model.predict_instances(one.image, diameter).labels
        close = touching(labels)
        # A pair of more than half is the only one of either, so parts may be matched alone.
        for name, part, least in (
            ("ap50", labels, 0.5),
            ("ap70", labels, 0.7),
            ("touching", close, 0.5),
            ("apart", np.where(close > 0, 0, labels), 0.5),
        ):
            total[name] += matching(part, predicted, least)
    return {
        name: one.average_precision if name.startswith("ap") else one.recall
        for name, one in total.items()
    }


def run(loss: str, seed: int, steps: int, options: argparse.Namespace) -> list[dict[str, object]]:
    """Train once, and measure both readouts."""
    updating, calibrating = zip(*(kept_for_updates(label_folder(one)) for one in options.folders))
    weights = options.out / f"{loss.replace(' ', '_')}_{steps}_{seed}.weights.h5"
    if weights.is_file():
        model = InstanceSegmenter("unet_small")
        model.load_weights(weights)
    else:
        model = trained(loss, seed, list(updating), steps)
        part = weights.with_name("part.weights.h5")
        model.save_weights(part)
        part.replace(weights)
    chosen = reduce(operator.add, calibrating)
    rows = []
    for readout in READOUTS:
        cls = InstanceSegmenter if readout == "mean shift" else Unshifted
        reading = cls.from_config(model.get_config())
        reading.set_weights(model.get_weights())
        reading.optimize_thresholds(
            (one.image for one in chosen), (one.instances for one in chosen)
        )
        rows.append({"readout": readout, **figures(reading, label_folder(options.left_out))})
    return rows


def main() -> None:
    """Run the missing runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="folders to train on")
    parser.add_argument("--left-out", type=Path, required=True, help="the one to measure on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[1800])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    kinds = [
        {"steps": str(steps), "loss": loss, "seed": str(seed)}
        for seed in range(options.seeds)
        for steps in options.steps
        for loss in LOSSES
    ]
    runs = repeated(
        options.out / "runs.csv",
        kinds,
        lambda kind: run(kind["loss"], int(kind["seed"]), int(kind["steps"]), options),
    )
    print(f"on {options.left_out.name}: mean (range)")
    print_ranges(runs, ["steps", "loss", "readout"], FIGURES)


if __name__ == "__main__":
    main()
