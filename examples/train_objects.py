r"""Train an object proposer on folders of photographs with label images.

    python examples/train_objects.py PHOTOS_A PHOTOS_B --out runs/objects

Each folder holds `images`, and `instances` with label images of the same names: 0 is background,
every other number is an object, and 255 is void. A fifth of the images of each folder is for the
test, as `label_folder(FOLDER).split(0.2)` chooses them. An eighth of the others is held out
in the same way to calibrate the score of the proposals. If it is killed, start the same command
again: training continues after the last hundred updates. At the end, the recall on the test images
is printed, proposals are drawn in `OUT/proposals.png`, and the model is written as a preset into
`OUT/preset`.

With `--minutes` in place of `--updates`, the learning rate follows the clock. On a GPU:

    KERAS_BACKEND=jax python examples/train_objects.py PHOTOS_A PHOTOS_B --out runs/objects \
        --minutes 10 --batch-size 32 --precision mixed_float16 --workers 8
"""

import argparse
import math
import operator
from functools import reduce
from pathlib import Path
from typing import Any

import keras
import numpy as np
from skimage.transform import resize

from keras_rpe.callbacks import TimeBudget, TrainingState
from keras_rpe.data import VOID, LabelledImages, label_folder
from keras_rpe.metrics import AverageRecall, GroundTruth
from keras_rpe.models import ObjectProposer, Proposals
from keras_rpe.visualization import overlay_instances

STEPS = 100  # Updates per epoch, or a few more; the state is written after each epoch.
# Scales of the grouping: faint objects need a low threshold, touching objects a high one.
SCALES = {
    "foreground_thresholds": (0.02, 0.06, 0.12, 0.2, 0.35, 0.5, 0.7, 0.85),
    "similarity_thresholds": (0.7, 0.97),
    "bandwidths": (0.2, 0.04),
    "iou_threshold": 0.9,
    "min_area": 24,
}
WARMUP = 0.05  # Share of the updates in which the learning rate rises.
TEST_SHARE, CALIBRATION_SHARE = 0.2, 0.125
VOID_IN_FILES = 255
ZOOM = (0.5, 1.5)  # At the lowest zoom, a crop of 256 pixels shows 512.
SHOWN = 8  # Test images in the picture.


def new_model(options: argparse.Namespace, updates: int) -> ObjectProposer:
    """A proposer from a preset or on a backbone that has seen ImageNet, ready to train."""
    if options.preset is not None:
        model = ObjectProposer.from_preset(options.preset, **SCALES)
        model = model.with_dtype_policy(options.precision)
    else:
        model = ObjectProposer(
            options.backbone,
            embedding_dim=options.embedding_dim,
            iterations=1,
            neighborhood=None,  # Objects are as large as the image.
            position_periods=None,
            coordinates=True,
            window_size=16,
            inference_window_size=128,
            output_stride=4,
            fusion_filters=64,
            ignore_label=VOID,
            backbone_weights=options.backbone_weights or None,
            **SCALES,
        )
    rate = options.learning_rate
    if options.minutes is None:
        warmup = int(WARMUP * updates)
        rate = keras.optimizers.schedules.CosineDecay(
            options.learning_rate / 100,
            decay_steps=updates - warmup,
            alpha=0.01,
            warmup_target=options.learning_rate,
            warmup_steps=warmup,
        )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=5.0))
    return model


def with_scales(model: ObjectProposer) -> ObjectProposer:
    """The same model with the scales above, if its training was started with others."""
    again = ObjectProposer.from_config({**model.get_config(), **SCALES})
    again.set_weights(model.get_weights())
    return again


def split(folder: Path) -> dict[str, LabelledImages]:
    """The images of one folder, by their use."""
    others, test = label_folder(folder, ignore_label=VOID_IN_FILES).split(TEST_SHARE)
    training, calibration = others.split(CALIBRATION_SHARE)
    return {"training": training, "calibration": calibration, "test": test}


def crops(training: LabelledImages, options: argparse.Namespace, epoch: int) -> Any:
    """Batches of random crops, `STEPS` of them or a few more in an epoch."""
    return training.crops(
        options.crop_size,
        options.batch_size,
        augment="photo",
        zoom=ZOOM,
        repeats=math.ceil(STEPS * options.batch_size / len(training)),
        # Another seed after a restart, so the crops do not repeat.
        seed=options.seed + 1000 * epoch,
        split_pieces=False,
        workers=options.workers,
    )


def read(parts: list[LabelledImages]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images with three channels, and their instance maps."""
    examples = [one for part in parts for one in part]
    return [one.image[..., :3] for one in examples], [one.instances for one in examples]


def draw(image: np.ndarray, labels: np.ndarray, proposals: Proposals) -> np.ndarray:
    """An image with its objects, and with the same number of best proposals, 256 pixels high."""
    best = np.zeros(labels.shape, "int32")
    # The best is drawn last, on top.
    for k in reversed(range(min(len(proposals), max(1, len(np.unique(labels[labels > 0])))))):
        best[proposals.masks[k]] = k + 1
    objects = labels.clip(min=0)
    pictures = [overlay_instances(image, one) for one in (objects, best)]
    height, width = image.shape[:2]
    size = (256, round(width * 256 / height))
    return np.concatenate([resize(one, size, preserve_range=True) for one in pictures], axis=1)


def main() -> None:
    """Train, calibrate, evaluate, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="with images/ and instances/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=1500, help="how many, to whole epochs")
    parser.add_argument("--minutes", type=float, help="in place of --updates")
    parser.add_argument("--preset", help="train this one further, in place of a backbone")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--backbone-weights", default="imagenet", help="a path, or '' for none")
    parser.add_argument("--embedding-dim", type=int, default=24)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--crop-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--precision", default="float32", help="or mixed_float16, mixed_bfloat16")
    parser.add_argument("--workers", type=int, default=0, help="processes that make crops")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.precision)
    parts = [split(folder) for folder in options.folders]
    training = reduce(operator.add, (part["training"] for part in parts))
    restored = TrainingState.restore(options.out)
    dataset = crops(training, options, 0 if restored is None else restored[1])
    epochs = max(round(options.updates / len(dataset)), 1)
    callbacks = [
        keras.callbacks.CSVLogger(str(options.out / "log.csv"), append=True),
        TrainingState(options.out),
    ]
    if options.minutes is not None:
        budget = TimeBudget(options.minutes, options.learning_rate, options.out, WARMUP)
        epochs = 0 if budget.is_over else 10**6
        callbacks.insert(0, budget)
    model, epoch = (new_model(options, epochs * len(dataset)), 0) if restored is None else restored
    if epoch < epochs:
        model.fit(dataset, epochs=epochs, initial_epoch=epoch, verbose=2, callbacks=callbacks)
    updates = int(model.optimizer.iterations)
    model = with_scales(model.with_dtype_policy("float32"))
    images, maps = read([part["calibration"] for part in parts])
    calibrated = len(images)
    correlation = model.calibrate(images, maps)
    print(f"rank correlation of scores with IoU, {calibrated} images: {correlation:.3f}")
    recall, pictures = AverageRecall(max_proposals=(10, 60), exclude_void=True), []
    images, maps = read([part["test"] for part in parts])
    for image, labels in zip(images, maps):
        proposals = model.predict_proposals(image)
        recall.update_state(GroundTruth(labels, ignore_label=VOID), proposals.masks)
        pictures.append(draw(image, labels, proposals))
    figures = {name: round(value, 4) for name, value in recall.result().items()}
    print(f"{len(images)} test images: {figures}")
    notes = {
        "task": "object proposals",
        "backbone": options.backbone,
        "initialised_from": options.preset or options.backbone_weights or "random weights",
        "trained_on": f"{sum(len(part['training']) for part in parts)} photographs",
        "calibrated_on": f"{calibrated} photographs",
        "figures": figures,
        "steps": updates,
        "crops": f"{options.batch_size} of {options.crop_size} pixels a side",
        "seed": options.seed,
    }
    model.save_to_preset(options.out / "preset", notes)
    shown = pictures[:: max(1, len(pictures) // SHOWN)][:SHOWN]
    width = max(picture.shape[1] for picture in shown)
    rows = [np.pad(one, ((0, 4), (0, width - one.shape[1]), (0, 0))) for one in shown]
    keras.utils.save_img(options.out / "proposals.png", np.concatenate(rows), scale=False)


if __name__ == "__main__":
    main()
