"""Train the bundled preset `nuclei` on the 2018 Data Science Bowl images (BBBC038, CC0).

    python examples/train_nuclei.py DSB2018_FOLDER --out runs/nuclei

The folder holds `images/ID.png` and `instances/ID.png`. A seventh of the images, chosen by a hash
of their names, is held out; the run's `validation.txt` and `validation_fluorescence.txt` list
them, for `keras-rpe evaluate DSB2018_FOLDER --names runs/nuclei/validation_fluorescence.txt`.
If it is killed, start the same command again, and training continues. At the end, the last weights
are evaluated on the held-out images and written as a preset into `OUT/preset`.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from keras_rpe.callbacks import TimeBudget, TrainingState
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
from keras_rpe.results import rgb_array


def is_fluorescence(pair: LabelPair) -> bool:
    """Whether an image is gray with a dark background, as fluorescence images are."""
    image = rgb_array(read_image(pair.image))
    gray = image.mean(axis=-1)
    colorless = np.abs(image - gray[..., None]).max() <= 2
    return bool(colorless and np.median(gray) < 0.5 * gray.max() and gray.mean() < 100)


def kept_for_updates(training: list[LabelPair]) -> tuple[list[LabelPair], list[LabelPair]]:
    """Training images for the weights, and every tenth one, on which thresholds are chosen."""
    return [pair for i, pair in enumerate(training) if i % 10], training[::10]


def mean_precision(model: InstanceSegmenter, pairs: list[LabelPair]) -> float:
    """Average precision at IoU 0.5, with counts pooled over the images."""
    labels = [read_labels(pair.instances) for pair in pairs]
    found = [model.predict_instances(read_image(pair.image)).labels for pair in pairs]
    return round(float(average_precision(labels, found, thresholds=(0.5,))[0]), 4)


def main() -> None:
    """Split, train, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-split", action="store_true", help="write the lists and stop")
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    training, validation = split_pairs(find_label_pairs(options.folder), 1 / 7, seed=0)
    fluorescence = [pair for pair in validation if is_fluorescence(pair)]
    options.out.mkdir(parents=True, exist_ok=True)
    for name, pairs in (
        ("training", training),
        ("validation", validation),
        ("validation_fluorescence", fluorescence),
        ("validation_stained", [pair for pair in validation if pair not in fluorescence]),
    ):
        (options.out / f"{name}.txt").write_text("".join(f"{pair.name}\n" for pair in pairs))
        print(f"{name}: {len(pairs)} images")
    if options.only_split:
        return

    updating, calibrating = kept_for_updates(training)
    names = [pair.name for pair in updating]
    dataset = label_folder(
        options.folder, crop_size=128, batch_size=options.batch_size, seed=options.seed, names=names
    )
    budget = TimeBudget(options.minutes, learning_rate=2e-3, folder=options.out)
    restored = TrainingState.restore(options.out)
    if restored is None:
        model, epoch = InstanceSegmenter("unet_small"), 0
        model.compile(keras.optimizers.AdamW(2e-3, weight_decay=1e-4, global_clipnorm=1.0))
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
    model.optimize_thresholds(
        (read_image(pair.image) for pair in calibrating),
        (read_labels(pair.instances) for pair in calibrating),
    )
    print(model.decoder.get_config())
    stained = [pair for pair in validation if pair not in fluorescence]
    figures = {
        f"AP at IoU 0.5, {len(pairs)} {name} images held out": mean_precision(model, pairs)
        for name, pairs in (("fluorescence", fluorescence), ("stained", stained))
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
        "seed": options.seed,
    }
    model.save_to_preset(options.out / "preset", notes)


if __name__ == "__main__":
    main()
