"""`keras-rpe train`: a model for one's own images, resumed where it was killed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_rpe.cli.model_option import load_segmenter
from keras_rpe.cli.output_folder import output_folder
from keras_rpe.cli.report import counted
from keras_rpe.cli.tensorflow_import import import_tensorflow
from keras_rpe.cli.train_settings import check_settings, names_digest, write_settings
from keras_rpe.written_file import write_file

if TYPE_CHECKING:
    from keras_rpe.data import LabelPair
    from keras_rpe.models import InstanceSegmenter

_LEARNING_RATE, _FINE_TUNING_RATE = 1e-3, 3e-4
_MIN_STEPS = 16
_MAX_WATCHED = 16


@dataclass(frozen=True)
class _Run:
    """What a training run is about."""

    folder: Path
    out: Path
    training: list[LabelPair]
    validation: list[LabelPair]
    settings: dict[str, Any]
    epochs: int
    patience: int
    licences: dict[str, str]


def train(
    folder: Annotated[Path, typer.Argument(help="Folder of images and label images.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    preset: Annotated[
        str | None, typer.Option(help="Train this preset further, a name or a folder.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Train this backbone, such as unet_small, efficientnet_lite0 or resnet50. "
            "Default: unet_small."
        ),
    ] = None,
    backbone_weights: Annotated[
        str | None,
        typer.Option(help="Weights of the backbone: imagenet or a file. Default: random."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="When to end at the latest.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    crop_size: Annotated[int, typer.Option(min=8, help="Side of the crops, in pixels.")] = 128,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Of AdamW in the first epoch, falling to a hundredth by the last along a cosine. "
            f"Default: {_LEARNING_RATE:g}, with --preset {_FINE_TUNING_RATE:g}."
        ),
    ] = None,
    validation_split: Annotated[
        float, typer.Option(help="Share of the images to validate on, between 0 and 1.")
    ] = 0.15,
    patience: Annotated[
        int, typer.Option(min=1, help="End after so many epochs without a better val_ap50.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the weights, the crops.")] = 0,
    images: Annotated[str, typer.Option(help="Glob of the images in the folder.")] = "images/*",
    instances: Annotated[
        str, typer.Option(help="Glob of the label images in the folder.")
    ] = "instances/*",
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Crops an image and epoch. Default: enough for {_MIN_STEPS} steps."
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
    data_licence: Annotated[str, typer.Option(help="Licence of the images, for the card.")] = "",
) -> None:
    """Train a model on images with label images of the same names.

    Started again with the same command, a run continues after its last whole
    epoch. The best model, by the average precision of whole validation images,
    becomes the preset OUT/preset.
    """
    if preset is not None and backbone is not None:
        raise typer.BadParameter("give either --preset or --backbone", param_hint="--backbone")
    if backbone_weights is not None and backbone is None:
        raise typer.BadParameter("needs --backbone", param_hint="--backbone-weights")
    rate = learning_rate
    if rate is None:
        rate = _LEARNING_RATE if preset is None else _FINE_TUNING_RATE
    if not 0 < rate < math.inf:
        raise ValueError(f"--learning-rate needs a positive number. Received: {rate}")
    import_tensorflow()
    from keras_rpe.data import check_label_pairs, find_label_pairs, split_pairs

    pairs = find_label_pairs(folder, images, instances)
    check_label_pairs(pairs)
    training, validation = split_pairs(pairs, validation_split, seed)
    settings = {
        "folder": str(folder.resolve()),
        "image_names": names_digest([pair.name for pair in pairs]),
        "preset": str(Path(preset).resolve()) if preset and Path(preset).is_dir() else preset,
        "backbone": None if preset else backbone or "unet_small",
        "backbone_weights": backbone_weights,
        "batch_size": batch_size,
        "crop_size": crop_size,
        "learning_rate": rate,
        "validation_split": validation_split,
        "seed": seed,
        "images": images,
        "instances": instances,
        "repeats": repeats,
    }
    licences = {"licence": licence, "data_licence": data_licence}
    run = _Run(folder, out, training, validation, settings, epochs, patience, licences)
    with output_folder(out):
        check_settings(out, settings)
        model, epoch = _model(run)
        write_settings(out, settings)
        write_file(out / "validation.txt", "".join(f"{pair.name}\n" for pair in validation))
        if not _has_ended(run, epoch):
            if epoch:
                typer.echo(f"continuing after epoch {epoch}")
            _fit(run, model, epoch)
        if not _preset_is_current(out):
            _save_preset(run, model)
    typer.echo(f"best model: {out / 'preset'}")
    typer.echo(f"use it with: keras-rpe segment IMAGES --preset {out / 'preset'} --out RESULTS")


def _model(run: _Run) -> tuple[InstanceSegmenter, int]:
    """The model that the run starts with or continues with, compiled, and its epochs so far."""
    import keras

    from keras_rpe.callbacks import TrainingState
    from keras_rpe.models import InstanceSegmenter

    restored = TrainingState.restore(run.out)
    keras.utils.set_random_seed(run.settings["seed"] + (restored[1] if restored else 0))
    if restored is not None:
        return restored
    if run.settings["preset"] is not None:
        model = load_segmenter(run.settings["preset"], None)
        if model.num_classes > 1:
            raise ValueError(
                "--preset must be of a model with one class, as label images hold no classes. "
                f"Received: {run.settings['preset']} with {model.num_classes} classes"
            )
    else:
        model = InstanceSegmenter(
            run.settings["backbone"], backbone_weights=run.settings["backbone_weights"]
        )
    model.compile(
        keras.optimizers.AdamW(
            run.settings["learning_rate"], weight_decay=1e-4, global_clipnorm=1.0
        )
    )
    return model, 0


def _has_ended(run: _Run, epoch: int) -> bool:
    """Whether there is nothing left to train, and say why."""
    from keras_rpe.callbacks import TrainingState

    if epoch >= run.epochs:
        typer.echo(f"all {run.epochs} epochs are done; train further with a larger --epochs")
        return True
    if TrainingState.is_stalled(run.out, run.patience):
        typer.echo(
            f"training has ended after epoch {epoch}: no better val_ap50 in {run.patience} epochs; "
            "train further with a larger --patience"
        )
        return True
    return False


def _fit(run: _Run, model: InstanceSegmenter, epoch: int) -> None:
    """Train until the last epoch, or until val_ap50 stalls."""
    import keras
    import tensorflow as tf

    from keras_rpe.callbacks import InstanceEvaluation, TrainingState
    from keras_rpe.cli.epoch_report import EpochReport, cut_log, input_problem
    from keras_rpe.data import label_folder, read_image, read_labels

    settings = run.settings
    dataset = label_folder(
        run.folder,
        images=settings["images"],
        instances=settings["instances"],
        crop_size=settings["crop_size"],
        batch_size=settings["batch_size"],
        repeats=settings["repeats"] or _repeats(len(run.training), settings["batch_size"]),
        # Epochs of a continued run get other crops than those before.
        seed=settings["seed"] + epoch,
        names=[pair.name for pair in run.training],
    )
    typer.echo(
        f"training on {counted(len(run.training), 'image')}, validating on "
        f"{counted(len(run.validation), 'image')}, {counted(len(dataset), 'step')} an epoch"
    )
    watched = [
        (read_image(pair.image), read_labels(pair.instances))
        for pair in run.validation[:_MAX_WATCHED]
        if pair.image is not None and pair.instances is not None
    ]
    log = run.out / "log.csv"
    cut_log(log, epoch)
    report = EpochReport(run.epochs, len(dataset))
    state = TrainingState(run.out, monitor="val_ap50", mode="max", patience=run.patience)

    def rate(epoch: int) -> float:
        fall = 0.5 + 0.5 * math.cos(math.pi * epoch / run.epochs)
        return settings["learning_rate"] * (0.01 + 0.99 * fall)

    try:
        model.fit(
            dataset,
            epochs=run.epochs,
            initial_epoch=epoch,
            verbose=0,
            callbacks=[
                keras.callbacks.LearningRateScheduler(rate),
                InstanceEvaluation(watched),
                report,  # before the state, which must not hold a model of a failed epoch
                keras.callbacks.CSVLogger(str(log), append=True),
                state,
            ],
        )
    except (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError) as error:
        raise ValueError(input_problem(error)) from error
    finally:
        report.close()
    if state.wait >= run.patience:
        typer.echo(f"no better val_ap50 in {run.patience} epochs")


def _repeats(images: int, batch_size: int) -> int:
    """Crops an image and epoch with which a small folder still makes `_MIN_STEPS` steps."""
    return max(1, math.ceil(_MIN_STEPS * batch_size / images))


def _preset_is_current(out: Path) -> bool:
    """Whether the preset was written after the best model: a kill may come between the two."""
    preset, best = out / "preset" / "metadata.json", out / "best.keras"
    if not preset.is_file() or not best.is_file():
        return False
    return preset.stat().st_mtime >= best.stat().st_mtime


def _save_preset(run: _Run, model: InstanceSegmenter) -> None:
    """Write the best model of the run as its preset."""
    import keras

    from keras_rpe.cli.epoch_report import epochs_in_log
    from keras_rpe.cli.train_notes import commands, held_out_figures, versions

    best = run.out / "best.keras"
    if best.is_file():
        model = keras.saving.load_model(best, compile=False)
    start, weights = run.settings["preset"], run.settings["backbone_weights"]
    notes = {
        "task": "instance segmentation",
        "backbone": getattr(model.backbone, "name", ""),
        "initialised_from": f"preset {Path(start).name}"
        if start
        else f"backbone weights {Path(weights).name}"
        if weights
        else "random weights",
        "trained_on": f"{len(run.training)} images of {run.folder.resolve().name}",
        **run.licences,
        "seed": run.settings["seed"],
        "epochs": epochs_in_log(run.out / "log.csv"),
        "versions": versions(),
        "commands": commands(run.folder, run.out, run.settings, run.epochs),
        **held_out_figures(model, run.validation),
        "limits": [
            "The epoch was chosen by some of the images held out, and they come from the same "
            "folder as those trained on: other sources of images are not tested."
        ],
    }
    model.save_to_preset(run.out / "preset", notes)
