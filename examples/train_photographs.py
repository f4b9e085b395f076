r"""Train on folders of photographs: object proposals, instances with classes, or classes.

    python examples/train_photographs.py proposals VOC COCO CATS --out runs/objects
    python examples/train_photographs.py classes VOC --out runs/voc_classes
    python examples/train_photographs.py instances VOC --out runs/voc_instances \
        --start runs/voc_classes/preset

Each folder holds `images` and `instances` with label images of the same names, in which 0 is
background, every other number an object, and 255 void; for classes `semantic` and `classes.json` as
well, the names of the classes from that of the background on. A fifth of the photographs of each
folder, chosen by a hash of their names, is held out; `OUT/FOLDER.txt` lists them, for
`keras-rpe evaluate FOLDER --names OUT/FOLDER.txt`. An eighth of the others is not trained on
either: the score of proposals, or the thresholds of instances, are chosen on them.

If it is killed, start the same command again, and training continues. At the end the model is
written as a preset into `OUT/preset`. On a GPU, larger batches and mixed precision make more of the
same minutes:

    KERAS_BACKEND=jax python examples/train_photographs.py proposals VOC COCO --out runs/objects \
        --minutes 10 --batch-size 32 --precision mixed_float16 --workers 8
"""

import argparse
import json
import operator
from functools import reduce
from pathlib import Path
from typing import Any

import keras

from keras_rpe.callbacks import TimeBudget, TrainingState
from keras_rpe.data import VOID, LabelledImages, label_folder
from keras_rpe.models import InstanceSegmenter, ObjectProposer, SemanticSegmenter, Task
from keras_rpe.models.task import transfer_weights

HELD_OUT, CHOSEN_ON = 0.2, 0.125  # Shares: for figures, and of the others for the last settings.
VOID_IN_FILES = 255
ZOOM = (0.5, 1.5)  # At the lowest zoom, a crop of 256 pixels shows 512.
# Objects are as large as the image, or a few cells.
OF_PHOTOGRAPHS = {
    "embedding_dim": 32,
    "iterations": 1,
    "window_size": 32,
    "inference_window_size": 128,
    "neighborhood": None,
    "position_periods": (16.0, 32.0, 64.0, 128.0),
}
# Scales of the grouping: faint objects need a low threshold, touching objects a high one.
SCALES = {
    "foreground_thresholds": (0.06, 0.2, 0.35, 0.5, 0.7),
    "similarity_thresholds": (0.4, 0.9, 0.97),
    "bandwidths": (0.2,),
    "iou_threshold": 0.8,
    "min_area": 24,
}


def new_model(options: argparse.Namespace, class_names: list[str]) -> Any:
    """A model on a backbone that has seen ImageNet, or what `--start` names."""
    shared = {
        "output_stride": 4,
        "ignore_label": VOID,
        "backbone_weights": options.backbone_weights or None,
    }
    if options.task == "proposals":
        model = ObjectProposer(
            options.backbone, fusion_filters=96, **OF_PHOTOGRAPHS, **SCALES, **shared
        )
    elif options.task == "instances":
        model = InstanceSegmenter(
            options.backbone,
            num_classes=len(class_names),
            class_names=class_names,
            fusion_filters=96,
            find_diameter=False,  # The objects of a photograph have all sizes.
            **OF_PHOTOGRAPHS,
            **shared,
        )
    else:
        model = SemanticSegmenter(
            options.backbone,
            num_classes=len(class_names),
            class_names=class_names,
            fusion_filters=96,
            **shared,
        )
    if options.start is not None:
        transfer_weights(Task.from_preset(options.start), model)  # Those that fit.
    return model


def prepare(model: Any, options: argparse.Namespace) -> None:
    """Freeze what is not trained, and compile; after a restart the optimizer begins anew."""
    # Heads that know nothing yet would spoil what ImageNet taught: they are trained first.
    model.backbone.trainable = options.tune_backbone
    for layer in model.backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    rate = options.learning_rate
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=5.0))


def split(options: argparse.Namespace) -> tuple[LabelledImages, LabelledImages, list[str]]:
    """Photographs for the weights and for the last settings, and the names of the classes."""
    parts, class_names = [], []
    classes = None if options.task == "proposals" else "semantic/*"
    for folder in options.folders:
        images = label_folder(folder, classes=classes, ignore_label=VOID_IN_FILES)
        others, held_out = images.split(HELD_OUT)
        name = folder.parent.name if folder.name in ("train", "all") else folder.name
        (options.out / f"{name}.txt").write_text("".join(f"{one}\n" for one in held_out.names))
        parts.append(others.split(CHOSEN_ON))
        print(f"{name}: {len(others)} photographs to train on, {len(held_out)} held out")
        if classes:
            class_names = json.loads((folder / "classes.json").read_text(encoding="utf-8"))[1:]
    training, chosen_on = (reduce(operator.add, images) for images in zip(*parts))
    return training, chosen_on, class_names


def choose(model: Any, images: LabelledImages) -> None:
    """Fit the score of proposals, or choose the thresholds of instances."""
    pixels = (one.image[..., :3] for one in images)
    labels = (one.instances for one in images)
    if isinstance(model, ObjectProposer):
        correlation = model.calibrate(pixels, labels)
        print(f"rank correlation of scores with IoU, {len(images)} images: {correlation:.3f}")
    elif isinstance(model, InstanceSegmenter):
        model.optimize_thresholds(pixels, labels)
        print(model.decoder.get_config())


def main() -> None:
    """Split, train, choose the last settings, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("proposals", "instances", "classes"))
    parser.add_argument("folders", type=Path, nargs="+", help="with images/ and instances/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=100.0)
    parser.add_argument("--start", help="a preset with whose weights to begin")
    parser.add_argument("--tune-backbone", action="store_true", help="train all its layers too")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--backbone-weights", default="imagenet", help="a path, or '' for none")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at its peak")
    parser.add_argument("--crop-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--precision", default="float32", help="or mixed_float16, mixed_bfloat16")
    parser.add_argument("--workers", type=int, default=0, help="processes that make crops")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.precision)
    training, chosen_on, class_names = split(options)
    budget = TimeBudget(options.minutes, options.learning_rate, options.out)
    restored = TrainingState.restore(options.out)
    model, epoch = (new_model(options, class_names), 0) if restored is None else restored
    if not budget.is_over:
        prepare(model, options)  # What is frozen is not in a saved state.
        dataset = training.crops(
            options.crop_size,
            options.batch_size,
            augment="photo",
            zoom=ZOOM,
            # Another seed after a restart, so the crops do not repeat.
            seed=options.seed + 1000 * epoch,
            split_pieces=False,
            workers=options.workers,
        )
        model.fit(
            dataset,
            epochs=10**6,
            initial_epoch=epoch,
            verbose=2,
            callbacks=[
                budget,
                keras.callbacks.CSVLogger(str(options.out / "log.csv"), append=True),
                TrainingState(options.out),
            ],
        )
    model = model.with_dtype_policy("float32")  # It is not known where the preset will run.
    choose(model, chosen_on)
    notes = {
        "task": {"proposals": "object proposals", "instances": "instance segmentation"}.get(
            options.task, "semantic segmentation"
        ),
        "backbone": options.backbone,
        "initialised_from": options.start or options.backbone_weights or "random weights",
        "trained_on": f"{len(training)} photographs",
        "backbone_tuned": options.tune_backbone,
        "updates": budget.updates,
        "minutes": options.minutes,
        "crops": f"{options.batch_size} of {options.crop_size} pixels a side",
        "learning_rate": options.learning_rate,
        "precision": options.precision,
        "seed": options.seed,
    }
    model.save_to_preset(options.out / "preset", notes)


if __name__ == "__main__":
    main()
