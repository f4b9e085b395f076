r"""Train an instance segmenter of nuclei on folders of several laboratories.

    python examples/train_nuclei.py DSB2018 KROMP BITDEPTH TNBC --out runs/nuclei

Each folder holds `images` and `instances` with label images of the same names. A seventh of the
images of each, chosen by a hash of their names, is held out; `OUT/FOLDER.txt` lists them, for
`keras-rpe evaluate FOLDER --names OUT/FOLDER.txt`. With `--leave-out`, one of the folders is not
trained on at all, and all of its images are evaluated: what holds there will hold for images of yet
another laboratory. Small folders, and images of stained tissue, are shown more often than their
number.

If it is killed, start the same command again, and training continues. At the end, the last weights
are evaluated on the held-out images and written as a preset into `OUT/preset`.

On a GPU, larger batches and mixed precision make more of the same minutes; the preset is float32
and loads on every backend:

    KERAS_BACKEND=jax python examples/train_nuclei.py DSB2018 KROMP --out runs/nuclei \
        --minutes 10 --batch-size 64 --learning-rate 4e-3 --precision mixed_float16 --workers 8
"""

import argparse
import math
import operator
from functools import reduce
from pathlib import Path

import keras
import numpy as np

from keras_rpe.callbacks import TimeBudget, TrainingState
from keras_rpe.data import LabelledImages, label_folder
from keras_rpe.metrics import average_precision
from keras_rpe.models import InstanceSegmenter
from keras_rpe.results import rgb_array

DIAMETER = 20.0  # In pixels, of most nuclei in a crop: the one at which images are segmented.
# The pair losses, one before and one after each loop, would drown the others.
LOSS_WEIGHTS = {"semantic": 2.0, "size": 0.5}
LEARNING_RATE = 2e-3


def kept_for_updates(training: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Training images for the weights, and every tenth one, on which thresholds are chosen."""
    names = [name for i, name in enumerate(training.names) if i % 10]
    return training.subset(names), training[::10]


def is_fluorescence(image: np.ndarray) -> bool:
    """Whether an image is gray with a dark background, as fluorescence images are."""
    image = rgb_array(image)
    gray = image.mean(axis=-1)
    colorless = np.abs(image - gray[..., None]).max() <= 2
    return bool(colorless and np.median(gray) < 0.5 * gray.max() and gray.mean() < 100)


def balanced(folders: list[LabelledImages]) -> LabelledImages:
    """All images as one sequence, in which a group has the weight of the root of its size.

    The fluorescence images of a folder are a group, and the others are.
    """
    groups = []
    for images in folders:
        dark = {name for name, one in zip(images.names, images) if is_fluorescence(one.image)}
        for names in (dark, set(images.names) - dark):
            if names:
                groups.append(images.subset(names))
    largest = max(map(len, groups))
    times = [max(round(math.sqrt(largest / len(one))), 1) for one in groups]
    return reduce(operator.add, (one.repeated(n) for one, n in zip(groups, times)))


def mean_precision(model: InstanceSegmenter, images: LabelledImages) -> float:
    """Average precision at IoU 0.5, with counts pooled over the images."""
    labels = [one.instances for one in images]
    found = [model.predict_instances(one.image).labels for one in images]
    return round(float(average_precision(labels, found, thresholds=(0.5,))[0]), 4)


def main() -> None:
    """Split, train, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--leave-out", type=Path, help="one of the folders")
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="at its peak")
    parser.add_argument("--precision", default="float32", help="or mixed_float16, mixed_bfloat16")
    parser.add_argument("--workers", type=int, default=0, help="processes that make crops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-split", action="store_true", help="write the lists and stop")
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.precision)
    options.out.mkdir(parents=True, exist_ok=True)
    updating, calibrating, trained_on, held_out = [], [], [], {}
    for folder in options.folders:
        name = folder.parent.name if folder.name == "train" else folder.name
        images = label_folder(folder)
        if options.leave_out is not None and folder.samefile(options.leave_out):
            held_out[name] = images
        else:
            training, held_out[name] = images.split(1 / 7, seed=0)
            trained_on.append(name)
            for kept, one in zip((updating, calibrating), kept_for_updates(training)):
                kept.append(one)
        listed = held_out[name].names
        (options.out / f"{name}.txt").write_text("".join(f"{one}\n" for one in listed))
        print(f"{name}: {len(images) - len(listed)} images to train on, {len(listed)} held out")
    if options.only_split:
        return

    training = balanced(updating)
    # An epoch of large batches is not much shorter than one of small ones.
    repeats = max(options.batch_size // 8, 1)
    dataset = training.crops(
        options.crop_size,
        options.batch_size,
        repeats=repeats,
        seed=options.seed,
        augment="microscopy",
        workers=options.workers,
        diameter=DIAMETER,
    )
    rate = options.learning_rate
    budget = TimeBudget(options.minutes, learning_rate=rate, folder=options.out)
    restored = TrainingState.restore(options.out)
    if restored is None:
        model, epoch = InstanceSegmenter("unet_small"), 0
        weights = {name: LOSS_WEIGHTS.get(name, 1.0) for name in model.output}
        optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0)
        model.compile(optimizer, loss_weights=weights)
    else:
        model, epoch = restored
    if not budget.is_over:
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
    chosen = reduce(operator.add, calibrating)
    model.optimize_thresholds((one.image for one in chosen), (one.instances for one in chosen))
    print(model.decoder.get_config())
    figures = {
        f"AP at IoU 0.5, {len(images)} images of {name} held out": mean_precision(model, images)
        for name, images in held_out.items()
    }
    print(figures)
    notes = {
        "task": "instance segmentation",
        "backbone": "unet_small",
        "trained_on": f"{sum(map(len, updating))} images of {', '.join(trained_on)}",
        "thresholds_from": f"{len(chosen)} other images of them",
        "left_out": options.leave_out.name if options.leave_out else None,
        "figures": figures,
        "updates": budget.updates,
        "minutes": options.minutes,
        "batch_size": options.batch_size,
        "learning_rate": rate,
        "precision": options.precision,
        "seed": options.seed,
    }
    model.save_to_preset(options.out / "preset", notes)


if __name__ == "__main__":
    main()
