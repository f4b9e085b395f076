"""Train a semantic segmenter on scenes of digits, with or without the pair loss beside softmax.

    python examples/digits_semantic.py --out runs/semantic
    python examples/digits_semantic.py --out runs/softmax --grouping-weight 0

A scene has 0 to 9 digits of MNIST, some of which cover others. The color shows the class; with
`--gray` there are no colors, and the class can only be seen from the shape. Keras downloads MNIST
once; `--source FILE.npz` uses a file instead. If it is killed, start the same command again:
training continues after the last hundred updates. At the end, the IoU on 500 test scenes without
training digits is printed, and the model is written as a preset into `OUT/preset`.
"""

import argparse
from pathlib import Path

import keras
import tensorflow as tf

from keras_rpe.callbacks import TrainingState
from keras_rpe.data import digits
from keras_rpe.layers import GammaCorrection
from keras_rpe.metrics import SemanticMeanIoU
from keras_rpe.models import SemanticSegmenter
from keras_rpe.models.backbones import unet_encoder

STEPS = 100  # Updates per epoch; the state is written after each epoch.
LEARNING_RATE = 2e-3
WARMUP = 0.05  # Share of the updates in which the learning rate rises.
TEST = 500  # Scenes.


def new_model(options: argparse.Namespace) -> SemanticSegmenter:
    """A segmenter of small images, ready to train."""
    image = keras.Input((None, None, 3), name="image")
    # A digit has every pixel that is not black, down to 1 of 255 at the rim of its strokes.
    bright = GammaCorrection(0.25, name="gamma")(image)
    encoder = unet_encoder((16, 32, 64, 96), stem_stride=1, name="encoder")
    model = SemanticSegmenter(
        keras.Model(image, encoder(bright), name="unet_digits"),
        num_classes=10,
        grouping_weight=options.grouping_weight,
        embedding_dim=options.embedding_dim,
        percentiles=(0.0, 100.0),
    )
    warmup = int(WARMUP * options.updates)
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / 100,
        decay_steps=options.updates - warmup,
        alpha=0.01,
        warmup_target=LEARNING_RATE,
        warmup_steps=warmup,
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0))
    return model


def scenes(options: argparse.Namespace, split: str, **settings: object) -> tf.data.Dataset:
    """Batches of scenes with their classes, in colors or in gray."""
    dataset = digits(options.source, split, batch_size=options.batch_size, classes=True, **settings)
    if not options.gray:
        return dataset

    def gray(images: tf.Tensor, labels: dict[str, tf.Tensor]) -> tuple:
        """Make each pixel as bright as its brightest color."""
        return tf.repeat(tf.reduce_max(images, axis=-1, keepdims=True), 3, axis=-1), labels

    return dataset.map(gray)


def mean_iou(model: SemanticSegmenter, dataset: tf.data.Dataset) -> float:
    """Mean IoU of the background and the ten classes, with the pixels of all scenes pooled."""
    metric = SemanticMeanIoU(num_classes=11)  # The background is one of them.
    for images, labels in dataset:
        metric.update_state(labels["classes"], model.predict_on_batch(images)["classes"])
    return float(metric.result())


def main() -> None:
    """Train, evaluate, and write the preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", help="an .npz file; default: Keras downloads MNIST")
    parser.add_argument("--grouping-weight", type=float, default=0.1, help="0: softmax only")
    parser.add_argument("--gray", action="store_true", help="no colors")
    parser.add_argument("--updates", type=int, default=500, help="whole hundreds")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--embedding-dim", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    if options.updates < STEPS or options.updates % STEPS:
        parser.error(f"--updates needs a multiple of {STEPS}. Received: {options.updates}")
    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    restored = TrainingState.restore(options.out)
    model, epoch = (new_model(options), 0) if restored is None else restored
    model.fit(
        scenes(
            options,
            "train",
            num_scenes=STEPS * options.batch_size,
            fresh=True,
            # Another seed after a restart, so the scenes do not repeat.
            seed=options.seed + 1000 * epoch,
        ),
        epochs=options.updates // STEPS,
        initial_epoch=epoch,
        verbose=2,
        callbacks=[
            keras.callbacks.CSVLogger(str(options.out / "log.csv"), append=True),
            TrainingState(options.out),
        ],
    )
    test = scenes(options, "test", num_scenes=TEST, same_class_share=0.0)
    figures = {f"mean IoU, {TEST} test scenes": round(mean_iou(model, test), 4)}
    print(figures)
    notes = {
        "task": "semantic segmentation",
        "backbone": "unet_encoder((16, 32, 64, 96), stem_stride=1) on pixels to the power 0.25",
        "trained_on": f"scenes of MNIST digits in {'gray' if options.gray else 'colors'}",
        "data_licence": "MNIST: CC BY-SA 3.0",
        "figures": figures,
        "grouping_weight": options.grouping_weight,
        "steps": options.updates,
        "seed": options.seed,
    }
    model.save_to_preset(options.out / "preset", notes)


if __name__ == "__main__":
    main()
