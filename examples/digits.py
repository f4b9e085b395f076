"""Train the network of the digits tutorial: multi-digit scenes, embedded on the sphere.

    python examples/digits.py --out runs/digits

A scene has 0 to 9 digits of MNIST, some of which cover others, and the color shows the class but
not the instance. The embedding has three dimensions, so it can be drawn on a sphere. Keras
downloads MNIST once; `--source FILE.npz` uses a file instead. After 25 updates there are first
pictures in OUT, and others follow:

- `scenes.png`: test scenes, the instances that were found, and the embeddings after each loop;
- `sphere.png`: the embeddings of one scene on the sphere, before mean shift and after each loop;
- `loss_per_loop.png`: the loss before and after each loop, over the epochs.

`--margin`, `--bandwidth` and `--iterations` change the grouping; `--paper` takes those of the
tutorial of the paper's authors, and pushes all digits of a scene apart, not only near ones.

If it is killed, start the same command again: training continues after the last hundred updates. At
the end, the thresholds of the decoder are set on scenes that nothing else uses, the figures of 500
test scenes are printed, and the model is written as a preset into `OUT/preset`.

With `--classes` the digits' classes are learned too. With `--loss-on embedding` the pair loss is
computed only before the loops, and everything else is equal; with `--pair-weight 1` its total
weight is the same in both cases. `--start PRESET` trains a network of this script further.
"""

import argparse
import sys
from pathlib import Path

import keras
import numpy as np

from keras_rpe.callbacks import TrainingState
from keras_rpe.data import digits
from keras_rpe.layers import GammaCorrection
from keras_rpe.metrics import Matching, matching
from keras_rpe.models import InstanceSegmenter
from keras_rpe.models.backbones import unet_encoder
from keras_rpe.visualization import (
    embedding_loops,
    loss_per_loop,
    overlay_instances,
    sphere_scatter,
)

STEPS = 100  # Updates per epoch; the state is written after each epoch.
LEARNING_RATE = 2e-3
WARMUP = 0.05  # Share of the updates in which the learning rate rises.
FIRST_PICTURE = 25  # Updates before it.
# What `--paper` stands for, and the defaults. Without a neighborhood, all pairs of pixels count.
PAPER = {"margin": 0.1, "bandwidth": 0.1, "iterations": 5, "neighborhood": None}
OURS = {"margin": 0.5, "bandwidth": 0.2, "iterations": 3, "neighborhood": 16.0}
SHOWN = 6  # Test scenes in the pictures.
CALIBRATION, TEST = 100, 500  # Scenes.

Scene = tuple[np.ndarray, np.ndarray]


class DigitPictures(keras.callbacks.Callback):
    """Draw test scenes, the sphere and the losses, more and more rarely as training goes on."""

    def __init__(self, scenes: list[Scene], out: Path) -> None:
        super().__init__()
        self.scenes, self.out = scenes, out

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Draw early once, to see that something is learned."""
        if int(self.model.optimizer.iterations) == FIRST_PICTURE:
            draw(self.model, self.scenes, self.out)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Draw after the first epoch, the second, the fourth and so on."""
        if (epoch + 1) & epoch == 0:
            draw(self.model, self.scenes, self.out)


def new_backbone() -> keras.Model:
    """An encoder of small images in which faint pixels count."""
    image = keras.Input((None, None, 3), name="image")
    # A digit has every pixel that is not black, down to 1 of 255 at the rim of its strokes.
    bright = GammaCorrection(0.25, name="gamma")(image)
    # Strokes are 3 pixels wide, so the finest features have stride 1.
    encoder = unet_encoder((16, 32, 64, 96), stem_stride=1, name="encoder")
    return keras.Model(image, encoder(bright), name="unet_digits")


def new_model(options: argparse.Namespace) -> InstanceSegmenter:
    """A segmenter of small images."""
    return InstanceSegmenter(
        new_backbone(),
        embedding_dim=options.embedding_dim,
        num_classes=10 if options.classes else 1,
        iterations=options.iterations,
        bandwidth=options.bandwidth,
        margin=options.margin,
        neighborhood=options.neighborhood,
        position_periods=None,  # They need an even dimension.
        coordinates=True,
        percentiles=(0.0, 100.0),
        inference_seeds=None,
        inference_window_size=64,  # The whole scene.
        find_diameter=False,  # All digits have one size.
    )


def compiled_model(options: argparse.Namespace) -> InstanceSegmenter:
    """A new network, or the network of a preset, ready to train."""
    if options.start is None:
        model = new_model(options)
    else:
        model = InstanceSegmenter.from_preset(options.start)
    # By updates, not by time, so runs that are compared have the same number of updates.
    warmup = int(WARMUP * options.updates)
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / 100,
        decay_steps=options.updates - warmup,
        alpha=0.01,
        warmup_target=LEARNING_RATE,
        warmup_steps=warmup,
    )
    weights = dict.fromkeys(model.output, 0.0) | {"semantic": 1.0}
    counted = ["embedding"]
    if options.loss_on == "every-loop":
        counted += [f"shift_{loop}" for loop in range(1, options.iterations + 1)]
    weights |= dict.fromkeys(counted, options.pair_weight / len(counted))
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0), loss_weights=weights
    )
    return model


def draw(model: InstanceSegmenter, scenes: list[Scene], out: Path) -> None:
    """Write the pictures of some scenes, of the sphere and of the losses."""
    rows = []
    for image, _ in scenes:
        found = model.predict_instances(image).labels
        overlay = overlay_instances(image, found).repeat(3, axis=0).repeat(3, axis=1)
        loops = embedding_loops(model, image, titles=False, scale=3)
        gap = np.full((len(overlay), 6, 3), 255, "uint8")
        rows.append(np.concatenate([overlay, gap, loops], axis=1))
        rows.append(np.full((6, rows[-1].shape[1], 3), 255, "uint8"))
    keras.utils.save_img(out / "scenes.png", np.concatenate(rows[:-1]), scale=False)
    if (out / "log.csv").is_file() and (out / "log.csv").read_text().count("\n") > 1:
        keras.utils.save_img(out / "loss_per_loop.png", loss_per_loop(out / "log.csv"), scale=False)
    if model.embedding_dim == 3:
        image, labels = scenes[0]
        embedding, scores = model.embed(image[None])
        loops = model.shift(embedding, scores, return_sequences=True)
        digit = labels > 0  # The background's embedding is not trained.
        points = [np.asarray(x)[0][digit] for x in (embedding, *loops)]
        titles = ["before mean shift", *(f"loop {loop}" for loop in range(1, len(points)))]
        picture = sphere_scatter(*points, labels=labels[digit], titles=titles)
        keras.utils.save_img(out / "sphere.png", picture, scale=False)


def draw_scenes(options: argparse.Namespace, split: str, count: int, seed: int) -> list[Scene]:
    """Scenes of any digits, drawn like the authors' test scenes."""
    dataset = digits(options.source, split, num_scenes=count, same_class_share=0.0, seed=seed)
    batches = [(images.numpy(), labels.numpy()) for images, labels in dataset]
    return [scene for batch in batches for scene in zip(*batch)]


def evaluate(model: InstanceSegmenter, scenes: list[Scene]) -> dict[str, float]:
    """Panoptic quality with the background as a segment, and how often the count is wrong."""
    total, wrong = None, 0
    for image, labels in scenes:
        found = model.predict_instances(image).labels
        one: Matching = matching(labels + 1, found + 1)
        total = one if total is None else total + one
        wrong += found.max() != len(np.unique(labels[labels > 0]))
    assert total is not None
    quality = total.panoptic_quality
    return {
        f"panoptic quality, {len(scenes)} test scenes": round(quality, 4),
        "share of them with a wrong number of digits": round(float(wrong / len(scenes)), 4),
    }


def main() -> None:
    """Train, draw, evaluate, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", help="an .npz file; default: Keras downloads MNIST")
    parser.add_argument("--updates", type=int, default=1500, help="whole hundreds")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--embedding-dim", type=int, default=3)
    parser.add_argument("--margin", type=float, help=f"of the loss; default: {OURS['margin']}")
    parser.add_argument("--bandwidth", type=float, help=f"default: {OURS['bandwidth']}")
    parser.add_argument("--iterations", type=int, help=f"loops; default: {OURS['iterations']}")
    parser.add_argument("--paper", action="store_true", help="the paper's instead, where not given")
    parser.add_argument("--classes", action="store_true", help="learn the digits' classes too")
    parser.add_argument("--loss-on", choices=("every-loop", "embedding"), default="every-loop")
    parser.add_argument("--pair-weight", type=float, help="of all of them; default: 1 for each")
    parser.add_argument("--start", type=Path, help="a preset of this script; default: random")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    settings = PAPER if options.paper else OURS
    given = {key: value for key, value in vars(options).items() if value is not None}
    vars(options).update(settings | given)
    if options.pair_weight is None:
        options.pair_weight = 1.0 + options.iterations * (options.loss_on == "every-loop")
    if options.updates < STEPS or options.updates % STEPS:
        parser.error(f"--updates needs a multiple of {STEPS}. Received: {options.updates}")
    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    restored = TrainingState.restore(options.out)
    model, epoch = (compiled_model(options), 0) if restored is None else restored
    dataset = digits(
        options.source,
        num_scenes=STEPS * options.batch_size,
        batch_size=options.batch_size,
        fresh=True,
        classes=options.classes,
        # Another seed after a restart, so the scenes do not repeat.
        seed=options.seed + 1000 * epoch,
    )
    test = draw_scenes(options, "test", TEST, seed=0)
    crowded = sorted(test[:100], key=lambda scene: -len(np.unique(scene[1])))[:SHOWN]
    model.fit(
        dataset,
        epochs=options.updates // STEPS,
        initial_epoch=epoch,
        verbose=2,
        callbacks=[
            keras.callbacks.CSVLogger(str(options.out / "log.csv"), append=True),
            DigitPictures(crowded, options.out),
            TrainingState(options.out),
        ],
    )
    # These scenes have digits of the training split, and another seed.
    calibration = draw_scenes(options, "train", CALIBRATION, seed=10**6 + options.seed)
    model.optimize_thresholds(*zip(*calibration))
    draw(model, crowded, options.out)
    figures = evaluate(model, test)
    print(figures)
    notes = {
        "task": "instance segmentation",
        "backbone": "unet_encoder((16, 32, 64, 96), stem_stride=1) on pixels to the power 0.25",
        "trained_on": "scenes of MNIST digits, drawn as in the tutorial of the paper's authors",
        "data_licence": "MNIST: CC BY-SA 3.0",
        "figures": figures,
        "steps": options.updates,
        "crops": f"{options.batch_size} scenes of 64 pixels a side",
        **{key: getattr(options, key) for key in settings},
        "loss_on": options.loss_on,
        "pair_weight": options.pair_weight,
        "initialised_from": "random weights" if options.start is None else str(options.start),
        "seed": options.seed,
    }
    model.save_to_preset(options.out / "preset", notes)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted: the same command continues after the last hundred updates")
