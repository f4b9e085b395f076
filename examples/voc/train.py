"""Train on PASCAL VOC 2012 from a recipe: object proposals, instances with classes, or classes.

    python examples/voc/train.py examples/voc/instances_resnet50.toml \
        --voc VOCdevkit --sbd benchmark_RELEASE --out runs/voc_instances

The recipe, a TOML file, has all numbers of the run; `voc_recipe.py` explains its keys. All GPUs
that TensorFlow sees are used. If it is killed, start the same command again: training continues
after the last 500 steps. At the end, the model is measured on VOC's val and written as a preset
into `OUT/preset`. If you start it again after that, the model is only measured and written again.

The other options replace numbers of the recipe for a dry run, which also works on a CPU: `--steps
20 --crop-size 64 --batch-size 2 --held-out 0.002 --backbone-weights '' --val-images 5`.
"""

import argparse
import math
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from voc_evaluation import adapt, evaluate
from voc_recipe import STATE_STEPS, TASKS, Recipe, check_run, read_recipe

from keras_rpe.callbacks import TrainingState
from keras_rpe.data import LabelledImages, pascal_voc

OVERRIDES = ("steps", "crop_size", "batch_size", "held_out", "backbone_weights")


def all_gpus(batch_size: int) -> tf.distribute.Strategy | None:
    """The strategy for several GPUs; `None` for one GPU or the CPU."""
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    if len(gpus) < 2:
        return None
    if batch_size % len(gpus):
        raise ValueError(
            f"batch_size needs a multiple of the {len(gpus)} GPUs: pass --batch-size, or hide "
            f"some of them by CUDA_VISIBLE_DEVICES. Received: {batch_size}"
        )
    return tf.distribute.MirroredStrategy(gpus)


def new_optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """Stochastic gradient descent whose learning rate falls to 0."""
    rate = keras.optimizers.schedules.PolynomialDecay(
        recipe.learning_rate, recipe.steps, end_learning_rate=0.0, power=recipe.power
    )
    # Decay in the gradient goes through the momentum, which makes it this much larger; Keras
    # subtracts it from the weights directly.
    decay = recipe.weight_decay / (1.0 - recipe.momentum)
    return keras.optimizers.SGD(rate, recipe.momentum, weight_decay=decay)


def make_model(
    recipe: Recipe, out: Path, strategy: tf.distribute.Strategy | None
) -> tuple[Any, int]:
    """A compiled model, new or from the run's last state, and the number of its epochs."""
    scope: AbstractContextManager = strategy.scope() if strategy else nullcontext()
    with scope:
        restored = TrainingState.restore(out)
        model, epoch = (TASKS[recipe.task](**recipe.model), 0) if restored is None else restored
        # XLA compiles for one GPU; on a CPU, compiling a ResNet takes longer than a dry run.
        one_gpu = strategy is None and bool(tf.config.list_logical_devices("GPU"))
        model.compile(
            model.optimizer if restored else new_optimizer(recipe),
            jit_compile="auto" if one_gpu else False,
        )
    return model, epoch


def split(
    voc: Path, sbd: Path | None, recipe: Recipe
) -> tuple[LabelledImages, LabelledImages | None]:
    """The images for training, and those held out, which have VOC's labels."""
    found, of_voc = pascal_voc(voc, "train", sbd), pascal_voc(voc, "train").names
    count = math.ceil(recipe.held_out * len(of_voc))
    chosen = np.random.default_rng(recipe.seed).choice(len(of_voc), count, replace=False)
    left_out = {of_voc[index] for index in chosen}
    names = [name for name in found.names if name not in left_out]
    if len(names) < recipe.batch_size:
        raise ValueError(
            f"batch_size needs at most {len(names)}, the number of training images. "
            f"Received: {recipe.batch_size}"
        )
    return found.subset(names), found.subset(left_out) if left_out else None


def check_loss(epoch: int, logs: dict[str, float]) -> None:
    """End the run before a useless state is written."""
    if not math.isfinite(logs["loss"]):
        sys.exit(
            f"The loss became {logs['loss']} after the last state: start again with a lower "
            "learning_rate and another --out."
        )


def train(model: Any, epoch: int, recipe: Recipe, images: LabelledImages, out: Path) -> None:
    """Train from the present state of the model to the last step."""
    steps = min(STATE_STEPS, recipe.steps)
    epochs = recipe.steps // steps
    if epoch >= epochs:
        return
    dataset = images.crops(
        recipe.crop_size,
        recipe.batch_size,
        zoom=recipe.zoom,
        # Another seed after a restart, so the crops do not repeat.
        seed=recipe.seed + 1000 * epoch,
    )
    # The last batch of all images may be too small for the GPUs, or for batch normalization.
    dataset = dataset.filter(lambda images, labels: tf.shape(images)[0] == recipe.batch_size)
    model.fit(
        dataset.repeat(),
        epochs=epochs,
        steps_per_epoch=steps,
        initial_epoch=epoch,
        verbose=2,
        callbacks=[
            keras.callbacks.CSVLogger(str(out / "log.csv"), append=True),
            keras.callbacks.LambdaCallback(on_epoch_end=check_loss),
            TrainingState(out),
        ],
    )


def parse_arguments() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="a TOML file")
    parser.add_argument("--voc", type=Path, required=True, help="VOCdevkit, or its tar archive")
    parser.add_argument("--sbd", type=Path, help="benchmark_RELEASE; default: only VOC's images")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--val-images", type=int, help="evaluate on so many; default: all of val")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--crop-size", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--held-out", type=float)
    parser.add_argument("--backbone-weights", help="imagenet, a path, or '' for none")
    options = parser.parse_args()
    if options.val_images is not None and options.val_images < 1:
        parser.error(f"--val-images needs a number from 1. Received: {options.val_images}")
    return options


def main() -> None:
    """Train, measure, and write the preset."""
    options = parse_arguments()
    overrides = {key: getattr(options, key) for key in OVERRIDES}
    overrides = {key: value for key, value in overrides.items() if value is not None}
    try:
        recipe = read_recipe(options.recipe, overrides)
        training, held_out = split(options.voc, options.sbd, recipe)
        val = pascal_voc(options.voc, "val")
        strategy = all_gpus(recipe.batch_size)
        check_run(options.out, recipe)
    except (OSError, ValueError) as error:
        sys.exit(f"train.py: {error}")
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model, epoch = make_model(recipe, options.out, strategy)
    except (TypeError, ValueError) as error:
        sys.exit(f"train.py: {options.recipe}: {error}")

    train(model, epoch, recipe, training, options.out)
    adapt(model, held_out)
    # Names begin with the year, so the first ones would all be from 2007.
    count = min(options.val_images or len(val), len(val))
    names = [val.names[index * len(val) // count] for index in range(count)]
    figures = evaluate(model, val.subset(names))
    print(figures)
    notes = {
        "task": recipe.task,
        "backbone": recipe.model["backbone"],
        "initialised_from": recipe.model.get("backbone_weights") or "random weights",
        "trained_on": f"{len(training)} images of PASCAL VOC 2012 train"
        + (" and of SBD" if options.sbd else ""),
        "data_licence": "photographs of Flickr, under its terms of use",
        "figures": figures,
        "figures_on": f"{count} images of PASCAL VOC 2012 val",
        "steps": recipe.steps,
        "crops": f"{recipe.batch_size} of {recipe.crop_size} pixels a side",
        "seed": recipe.seed,
        "recipe": asdict(recipe),
    }
    model.save_to_preset(options.out / "preset", notes)


if __name__ == "__main__":
    main()
