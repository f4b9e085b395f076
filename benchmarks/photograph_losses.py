"""Measure the losses of the paper on photographs, each with everything else equal.

    python benchmarks/photograph_losses.py classes VOC --out runs/losses
    python benchmarks/photograph_losses.py proposals VOC --out runs/losses --start voc_classes
    python benchmarks/photograph_losses.py instances VOC --out runs/losses --start voc_classes

The recipe, and the photographs held out, are those of `examples/train_photographs.py`, with equal
numbers of updates and the same seeds. All figures are of the photographs held out.

- `classes` (Kong & Fowlkes, CVPR 2018, section 4): the pair loss on classes beside cross-entropy,
  and cross-entropy alone. The weight is chosen by the mean IoU on photographs that are neither
  trained on nor held out, with the first seed. "at borders" is the mean IoU of the pixels that are
  at most three pixels away from another class or from void.
- `proposals` and `instances`: the pair loss before and after every loop of mean shift, and before
  the loops only, with the weight of all of them. There are `--iterations` loops.

Each run is a line of OUT/TASK.csv; if you start it again, finished runs are not repeated.
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np
from scipy import ndimage
from seeds import Row, print_ranges, repeated

from keras_rpe.data import VOID, LabelledImages, label_folder
from keras_rpe.metrics import AverageRecall, GroundTruth, MaskAveragePrecision, class_iou

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import train_photographs as recipe

LOSSES = ("before and after", "before")
NEAR = 3  # Pixels from a border.
FIGURES = {
    "classes": ("mIoU", "mIoU_at_borders"),
    "proposals": ("AR@10", "AR@60", "AR50@10"),
    "instances": ("AP50", "AP70"),
}


def trained(task: str, kind: Row, training: LabelledImages, names: list[str], options):
    """Train with one of the losses."""
    keras.backend.clear_session()
    seed = int(kind["seed"])
    keras.utils.set_random_seed(seed)
    model = recipe.new_model(options, names)
    recipe.prepare(model, options)
    weights = dict.fromkeys(model.output, 1.0)
    if task == "classes":
        weights |= {name: float(kind["weight"]) for name in weights if name != "semantic"}
    elif kind["loss"] == "before":
        loops = [name for name in weights if name.startswith("shift_")]
        weights |= {"embedding": 1.0 + len(loops), **dict.fromkeys(loops, 0.0)}
    warmup = options.updates // 20
    rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate / 100,
        options.updates - warmup,
        alpha=1e-2,
        warmup_target=options.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=5.0)
    model.compile(optimizer, loss_weights=weights)
    crops = training.crops(
        options.crop_size, options.batch_size, augment="photo", zoom=recipe.ZOOM, seed=seed
    )
    model.fit(crops.repeat(), steps_per_epoch=options.updates, epochs=1, verbose=0)
    return model


def of_classes(model, images: LabelledImages) -> dict[str, float]:
    """The mean IoU of all pixels, and of those at borders."""
    truths = [one.classes for one in images]
    found = [model.predict_classes(one.image[..., :3]).classes for one in images]
    side = 2 * NEAR + 1
    near = [ndimage.maximum_filter(x, side) > ndimage.minimum_filter(x, side) for x in truths]
    borders = [np.where(inside, truth, VOID) for inside, truth in zip(near, truths)]
    return {
        name: float(np.mean([*class_iou(maps, found, model.num_classes + 1, VOID).values()]))
        for name, maps in zip(FIGURES["classes"], (truths, borders))
    }


def of_proposals(model, images: LabelledImages) -> dict[str, float]:
    """Average recall."""
    recall = AverageRecall((10, 60), exclude_void=True)
    for one in images:
        masks = model.predict_proposals(one.image[..., :3], 60).masks
        recall.update_state(GroundTruth(one.instances, ignore_label=VOID), masks)
    figures = recall.result()
    return {name: figures[name] for name in FIGURES["proposals"]}


def of_instances(model, images: LabelledImages) -> dict[str, float]:
    """The mean over classes of the average precision of masks."""
    precision = MaskAveragePrecision("voc", (0.5, 0.7))
    for one in images:
        truth = GroundTruth(one.instances, one.classes, ignore_label=VOID)
        precision.update_state(truth, model.predict_instances(one.image[..., :3]))
    figures = precision.result()
    return {name: figures[name] for name in FIGURES["instances"]}


def main() -> None:
    """Run the missing runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=tuple(FIGURES))
    parser.add_argument("folder", type=Path, help="as train_photographs.py takes it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", help="a preset with whose weights to begin")
    parser.add_argument("--updates", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3, help="loops of mean shift in training")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.01, 0.03, 0.1, 0.3])
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--backbone-weights", default="imagenet", help="a path, or '' for none")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at its peak")
    parser.add_argument("--crop-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    options.folders, options.tune_backbone = [options.folder], False
    recipe.OF_PHOTOGRAPHS["iterations"] = options.iterations  # The recipe has one.
    options.out.mkdir(parents=True, exist_ok=True)
    training, chosen_on, names = recipe.split(options)
    _, held_out = label_folder(
        options.folder, classes="semantic/*", ignore_label=recipe.VOID_IN_FILES
    ).split(recipe.HELD_OUT)
    table = options.out / f"{options.task}.csv"

    def run(kind: Row) -> list[dict[str, object]]:
        model = trained(options.task, kind, training, names, options)
        if options.task == "classes":
            chosen = of_classes(model, chosen_on)["mIoU"]
            return [{**of_classes(model, held_out), "mIoU_chosen_on": chosen}]
        recipe.choose(model, chosen_on)
        measure = of_proposals if options.task == "proposals" else of_instances
        return [measure(model, held_out)]

    seeds = [str(seed) for seed in range(options.seeds)]
    if options.task == "classes":
        weights = [str(weight) for weight in (0.0, *options.weights)]
        runs = repeated(table, [{"weight": one, "seed": "0"} for one in weights], run)
        tried = [row for row in runs if row["seed"] == "0" and row["weight"] in weights[1:]]
        best = max(tried, key=lambda row: float(row["mIoU_chosen_on"]))["weight"]
        kinds = [{"weight": w, "seed": seed} for seed in seeds for w in ("0.0", best)]
        runs = repeated(table, kinds, run)
        print(f"weight chosen: {best}")
        print_ranges(runs, ["weight"], [*FIGURES["classes"], "mIoU_chosen_on"])
    else:
        kinds = [{"loss": loss, "seed": seed} for seed in seeds for loss in LOSSES]
        print_ranges(repeated(table, kinds, run), ["loss"], FIGURES[options.task])


if __name__ == "__main__":
    main()
