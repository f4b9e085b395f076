r"""Train the bundled preset `nuclei` on the 2018 Data Science Bowl images (BBBC038, CC0).

    python examples/train_nuclei.py DSB2018_FOLDER --out runs/nuclei

The folder holds `images/ID.png` and `instances/ID.png`. A seventh of the images, chosen by a hash
of their names, is held out; the run's `validation.txt` and `validation_fluorescence.txt` list
them, for `keras-rpe evaluate DSB2018_FOLDER --names runs/nuclei/validation_fluorescence.txt`.
If it is killed, start the same command again, and training continues. At the end, the last weights
are evaluated on the held-out images and written as a preset into `OUT/preset`.

On a GPU, larger batches and mixed precision make more of the same minutes; the preset is float32
and loads on every backend:

    KERAS_BACKEND=jax python examples/train_nuclei.py DSB2018_FOLDER --out runs/nuclei \
        --minutes 10 --batch-size 64 --learning-rate 4e-3 --precision mixed_float16 --workers 8
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from keras_rpe.callbacks import TimeBudget, TrainingState
from keras_rpe.data import LabelledImages, label_folder
from keras_rpe.metrics import average_precision
from keras_rpe.models import InstanceSegmenter
from keras_rpe.results import rgb_array


def is_fluorescence(image: np.ndarray) -> bool:
    """Whether an image is gray with a dark background, as fluorescence images are."""
    image = rgb_array(image)
    gray = image.mean(axis=-1)
    colorless = np.abs(image - gray[..., None]).max() <= 2
    return bool(colorless and np.median(gray) < 0.5 * gray.max() and gray.mean() < 100)


def kept_for_updates(training: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Training images for the weights, and every tenth one, on which thresholds are chosen."""
    names = [name for i, name in enumerate(training.names) if i % 10]
    return training.subset(names), training[::10]


def mean_precision(model: InstanceSegmenter, images: LabelledImages) -> float:
    """Average precision at IoU 0.5, with counts pooled over the images."""
    labels = [one.instances for one in images]
    found = [model.predict_instances(one.image).labels for one in images]
    return round(float(average_precision(labels, found, thresholds=(0.5,))[0]), 4)


def main() -> None:
    """Split, train, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at its peak")
    parser.add_argument("--precision", default="float32", help="or mixed_float16, mixed_bfloat16")
    parser.add_argument("--workers", type=int, default=0, help="processes that make crops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-split", action="store_true", help="write the lists and stop")
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.precision)
    training, validation = label_folder(options.folder).split(1 / 7, seed=0)
    dark = {n for n, one in zip(validation.names, validation) if is_fluorescence(one.image)}
    groups = {
        "fluorescence": [name for name in validation.names if name in dark],
        "stained": [name for name in validation.names if name not in dark],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for file, names in {
        "training": training.names,
        "validation": validation.names,
        **{f"validation_{group}": names for group, names in groups.items()},
    }.items():
        (options.out / f"{file}.txt").write_text("".join(f"{name}\n" for name in names))
        print(f"{file}: {len(names)} images")
    if options.only_split:
        return

    updating, calibrating = kept_for_updates(training)
    # An epoch of large batches is not much shorter than one of small ones.
    repeats = max(options.batch_size // 8, 1)
    dataset = updating.crops(
        128, options.batch_size, repeats=repeats, seed=options.seed, workers=options.workers
    )
    rate = options.learning_rate
    budget = TimeBudget(options.minutes, learning_rate=rate, folder=options.out)
    restored = TrainingState.restore(options.out)
    if restored is None:
        model, epoch = InstanceSegmenter("unet_small"), 0
        model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0))
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
    model.optimize_thresholds(
        (one.image for one in calibrating), (one.instances for one in calibrating)
    )
    print(model.decoder.get_config())
    figures = {
        f"AP at IoU 0.5, {len(names)} {group} images held out": mean_precision(
            model, validation.subset(names)
        )
        for group, names in groups.items()
        if names
    }
    print(figures)
    notes = {
        "task": "instance segmentation",
        "backbone": "unet_small",
        "trained_on": f"{len(updating)} images of the 2018 Data Science Bowl (BBBC038v1, CC0)",
        "thresholds_from": f"{len(calibrating)} other images of it",
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
