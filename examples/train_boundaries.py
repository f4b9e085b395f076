"""Train a boundary detector on BSDS500 (for research and education only).

    python examples/train_boundaries.py BSDS500_FOLDER --out runs/boundaries

The folder holds `images/{train,val,test}` and `groundTruth/{train,val,test}`. As in the paper, the
embeddings are first trained with the pair loss too, and then only for the boundary maps: the pair
loss counts during the first `--embedding-share` of the updates; with 0 it never counts, and
everything else is the same. The batch normalization of a backbone that has seen ImageNet stays as
it is. If it is killed, start the same command again: training continues after the last hundred
updates. At the end, the last weights are written as a preset into `OUT/preset`, and the boundaries
of a validation image into `OUT/boundaries.png`.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from keras_rpe.callbacks import TrainingState
from keras_rpe.data import bsds500, find_boundary_pairs, read_image
from keras_rpe.models import BoundaryDetector

STEPS = 100  # Updates per epoch; the state is written after each epoch.
WARMUP = 0.05  # Share of the updates in which the learning rate rises.
BORDER = 5  # Pixels from the sides, where the network sees the end of the image.


def new_model(options: argparse.Namespace) -> BoundaryDetector:
    """A detector on a backbone that has seen ImageNet."""
    return BoundaryDetector(
        options.backbone,
        embedding_dim=options.embedding_dim,
        margin=options.margin,
        border=BORDER,
        backbone_weights=options.backbone_weights or None,
    )


def prepare(
    model: BoundaryDetector, options: argparse.Namespace, updates: int
) -> keras.optimizers.Optimizer:
    """Freeze batch normalization, and make an optimizer that goes on after so many updates."""
    for layer in model.backbone.layers if options.backbone_weights else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    # By updates, not by time, so runs that are compared have the same number of updates.
    warmup = int(WARMUP * options.updates)
    rate = keras.optimizers.schedules.CosineDecay(
        options.learning_rate / 100,
        decay_steps=options.updates - warmup,
        alpha=0.01,
        warmup_target=options.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=5.0)
    optimizer.iterations.assign(updates)
    return optimizer


def write_picture(model: BoundaryDetector, folder: Path, path: Path) -> None:
    """One validation image, its boundaries and the thinned ones, side by side."""
    image = read_image(find_boundary_pairs(folder, "val")[0].image)[..., :3]
    found = model.predict_boundaries(image)
    maps = [found.probabilities, found.thinned]
    gray = [np.repeat(255 * (1 - one[..., None]), 3, axis=-1) for one in maps]
    picture = np.concatenate([image, *gray], axis=1).astype("uint8")
    keras.utils.save_img(path, picture, scale=False)


def main() -> None:
    """Train, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=2400, help="whole hundreds")
    parser.add_argument("--splits", nargs="+", default=["train"], choices=("train", "val"))
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--backbone-weights", default="imagenet", help="a path, or '' for none")
    parser.add_argument("--embedding-share", type=float, default=0.5)
    parser.add_argument("--embedding-dim", type=int, default=3)
    parser.add_argument("--margin", type=float, default=0.1, help="of the pair loss")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--crop-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    if not 0.0 <= options.embedding_share <= 1.0:
        parser.error(
            f"--embedding-share needs a number in [0, 1]. Received: {options.embedding_share}"
        )
    if options.updates < STEPS or options.updates % STEPS:
        parser.error(f"--updates needs a multiple of {STEPS}. Received: {options.updates}")
    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    restored = TrainingState.restore(options.out)
    model, epoch = (new_model(options), 0) if restored is None else restored
    dataset = bsds500(
        options.folder,
        split=options.splits,
        crop_size=options.crop_size,
        batch_size=options.batch_size,
        # Another seed after a restart, so the crops do not repeat.
        seed=options.seed + 1000 * epoch,
    )
    # What is frozen is not in a saved state, so its optimizer, for all weights, is of no use.
    optimizer = prepare(model, options, epoch * STEPS)
    epochs = options.updates // STEPS
    embedding_epochs = round(options.embedding_share * epochs)
    for last, weight in ((embedding_epochs, 1.0), (epochs, 0.0)):
        if epoch >= last:
            continue
        weights = {f"embedding_{stride}": weight for stride in model.strides}
        # The optimizer continues from its present state.
        model.compile(optimizer, loss_weights={"logits": 1.0, **weights})
        model.fit(
            dataset.repeat(),
            epochs=last,
            steps_per_epoch=STEPS,
            initial_epoch=epoch,
            verbose=2,
            callbacks=[
                keras.callbacks.CSVLogger(str(options.out / "log.csv"), append=True),
                TrainingState(options.out),
            ],
        )
        epoch = last
    notes = {
        "task": "boundary detection",
        "backbone": options.backbone,
        "initialised_from": options.backbone_weights or "random weights",
        "trained_on": f"BSDS500, {' and '.join(options.splits)}",
        "data_licence": "non-commercial research and education",
        "steps": options.updates,
        "crops": f"{options.batch_size} of {options.crop_size} pixels a side",
        "updates_with_pair_loss": embedding_epochs * STEPS,
        "margin": options.margin,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
    }
    model.save_to_preset(options.out / "preset", notes)
    write_picture(model, options.folder, options.out / "boundaries.png")


if __name__ == "__main__":
    main()
