"""The command `train`."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import platform
import re
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_rpe_cli.options import load_segmenter, output_folder
from keras_rpe_cli.report import counted, import_keras_rpe, one_line, progress_bar

if TYPE_CHECKING:
    from keras_rpe.data import LabelledImages
    from keras_rpe.models import InstanceSegmenter

_LEARNING_RATE, _FINE_TUNING_RATE = 1e-3, 3e-4
_MIN_STEPS = 16
_MAX_WATCHED = 16
_THRESHOLDS = [0.5, 0.7, 0.9]
_SETTINGS = "settings.json"


@dataclass(frozen=True)
class _Run:
    """What a training run is about."""

    folder: Path
    out: Path
    training: LabelledImages
    validation: LabelledImages
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
    epochs: Annotated[int, typer.Option(min=1, help="Number of the last epoch.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, help="Crops in a step.")] = 8,
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
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the split, the weights and the crops.")
    ] = 0,
    images: Annotated[str, typer.Option(help="Glob of the images in the folder.")] = "images/*",
    instances: Annotated[
        str, typer.Option(help="Glob of the label images in the folder.")
    ] = "instances/*",
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Crops of each image in an epoch. Default: enough for {_MIN_STEPS} steps.",
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="License of the weights, for the card.")] = "",
    data_licence: Annotated[str, typer.Option(help="License of the images, for the card.")] = "",
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
    import_keras_rpe()
    from keras_rpe.arguments import check_number
    from keras_rpe.data import label_folder
    from keras_rpe.written_file import write_file

    if learning_rate is None:
        learning_rate = _LEARNING_RATE if preset is None else _FINE_TUNING_RATE
    check_number("--learning-rate", learning_rate)
    found = label_folder(folder, images=images, instances=instances)
    training, validation = found.split(validation_split, seed)
    settings = {
        "folder": str(folder.resolve()),
        "image_names": names_digest(found.names),
        "preset": str(Path(preset).resolve()) if preset and Path(preset).is_dir() else preset,
        "backbone": None if preset else backbone or "unet_small",
        "backbone_weights": backbone_weights,
        "batch_size": batch_size,
        "crop_size": crop_size,
        "learning_rate": learning_rate,
        "validation_split": validation_split,
        "seed": seed,
        "images": images,
        "instances": instances,
        "repeats": repeats,
    }
    licences = {"licence": licence, "data_licence": data_licence}
    run = _Run(folder, out, training, validation, settings, epochs, patience, licences)
    with output_folder(out):
        _check_settings(out, settings)
        model, epoch = _model(run)
        write_file(out / _SETTINGS, json.dumps(settings, indent=2) + "\n")
        write_file(out / "validation.txt", "".join(f"{name}\n" for name in validation.names))
        if not _has_ended(run, epoch):
            if epoch:
                typer.echo(f"continuing after epoch {epoch}")
            _fit(run, model, epoch)
        if not _preset_is_current(out):
            _save_preset(run, model)
    typer.echo(f"best model: {out / 'preset'}")
    typer.echo(f"use it with: keras-rpe segment IMAGES --preset {out / 'preset'} --out RESULTS")


def names_digest(names: Sequence[str]) -> str:
    """Sum up the names of images: how many they are, and a hash of them.

    Example:
        >>> names_digest(["a", "b"])
        '2 images (59900c43)'
    """
    digest = hashlib.blake2b("\n".join(sorted(names)).encode(), digest_size=4).hexdigest()
    return f"{len(names)} images ({digest})"


def _check_settings(run: Path, settings: dict[str, Any]) -> None:
    """Check that a run is new, or was started with these settings."""
    path = run / _SETTINGS
    if not path.exists():
        if any(run.glob("epoch-*")):
            raise ValueError(
                f"--out {run} holds a training run without {_SETTINGS}, choose another folder."
            )
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        before.get("folder")
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, choose another folder with --out.") from error
    names = {"folder": "FOLDER", "image_names": "a FOLDER of"}
    differences = [
        f"{names.get(key, '--' + key.replace('_', '-'))} {_shown(before.get(key))}, "
        f"not {_shown(value)}"
        for key, value in settings.items()
        if before.get(key) != value
    ]
    if differences:
        raise ValueError(
            f"The run in {run} was started with {'; '.join(differences)}: repeat its settings, or "
            "choose another folder with --out."
        )


def _shown(value: Any) -> Any:
    return "left out" if value is None else value


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
    """Whether nothing is left to train; says why."""
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

    settings = run.settings
    dataset = run.training.crops(
        settings["crop_size"],
        settings["batch_size"],
        repeats=settings["repeats"] or _repeats(len(run.training), settings["batch_size"]),
        # The epochs of a continued run get other crops than those before.
        seed=settings["seed"] + epoch,
    )
    typer.echo(
        f"training on {counted(len(run.training), 'image')}, validating on "
        f"{counted(len(run.validation), 'image')}, {counted(len(dataset), 'step')} an epoch"
    )
    watched = [(image, labels) for image, labels, _ in run.validation[:_MAX_WATCHED]]
    log = run.out / "log.csv"
    _cut_log(log, epoch)
    report = _EpochReport(run.epochs, len(dataset))
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
                # Before the state, which must not hold a model of a failed epoch.
                keras.callbacks.LambdaCallback(
                    on_epoch_begin=report.begin,
                    on_train_batch_end=report.advance,
                    on_epoch_end=report.end,
                ),
                keras.callbacks.CSVLogger(str(log), append=True),
                state,
            ],
        )
    except tf.errors.ResourceExhaustedError as error:
        raise ValueError(
            "The memory is too small for this model: lower --batch-size or --crop-size."
        ) from error
    except tf.errors.InvalidArgumentError as error:
        # The sentence of an assertion in the data, out of what TensorFlow puts around it.
        found = re.search(r"assertion failed: \[b?['\"]?(.*?)['\"]?\]", str(error), re.DOTALL)
        raise ValueError(found.group(1) if found else one_line(error)[:300]) from error
    finally:
        report.close()
    if state.wait >= run.patience:
        typer.echo(f"no better val_ap50 in {run.patience} epochs")


def _repeats(images: int, batch_size: int) -> int:
    """Crops of each image in an epoch with which a small folder still makes `_MIN_STEPS` steps."""
    return max(1, math.ceil(_MIN_STEPS * batch_size / images))


class _EpochReport:
    """A bar in every epoch and a line after it; ends a run whose loss is not finite."""

    def __init__(self, epochs: int, steps: int) -> None:
        self._epochs = epochs
        self._steps = steps
        self._start = 0.0
        self._bar = ExitStack()
        self._advance: Any = None

    def begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start = time.perf_counter()
        bar = progress_bar(f"epoch {epoch + 1}/{self._epochs}", self._steps)
        self._advance = self._bar.enter_context(bar)

    def advance(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._advance()

    def end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.close()
        logs = logs or {}
        if not math.isfinite(logs.get("loss", 0.0)):
            raise ValueError(
                f"The loss of epoch {epoch + 1} is not finite: start a new run with a lower "
                "--learning-rate."
            )
        parts = [
            f"{name.removesuffix('_loss')} {logs[name]:.4f}"
            for name in sorted(logs)
            if name.endswith("_loss") and not name.startswith("val_")
        ]
        figures = [f"{name} {logs[name]:.3f}" for name in logs if name.startswith("val_")]
        typer.echo(
            f"epoch {epoch + 1}/{self._epochs}  loss {logs.get('loss', math.nan):.4f} "
            f"({', '.join(parts)})  {'  '.join(figures)}  {time.perf_counter() - self._start:.0f} s"
        )

    def close(self) -> None:
        self._bar.close()


def _cut_log(path: Path, epochs: int) -> None:
    """Leave only those epochs in the log of a run that its state has."""
    from keras_rpe.written_file import write_file

    rows = _log_rows(path)
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(row for row in rows if int(row["epoch"]) < epochs)
    write_file(path, text.getvalue())


def _log_rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a log, which ends anywhere where the run was killed."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if str(row.get("epoch")).isdigit()]


def _preset_is_current(out: Path) -> bool:
    """Whether the preset was written after the best model: a kill may come between the two."""
    preset, best = out / "preset" / "metadata.json", out / "best.keras"
    if not preset.is_file() or not best.is_file():
        return False
    return preset.stat().st_mtime >= best.stat().st_mtime


def _save_preset(run: _Run, model: InstanceSegmenter) -> None:
    """Write the best model of the run as its preset, with figures of the images held out."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_rpe
    from keras_rpe_cli.evaluate import match_images

    best = run.out / "best.keras"
    if best.is_file():
        model = keras.saving.load_model(best, compile=False)
    matchings, _ = match_images(model, run.validation, _THRESHOLDS)
    figures = {f"AP at IoU {m.threshold:g}": round(m.average_precision, 4) for m in matchings}
    figures["PQ at IoU 0.5"] = round(matchings[0].panoptic_quality, 4)
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
        "epochs": len(_log_rows(run.out / "log.csv")),
        "versions": {
            "python": platform.python_version(),
            **{package.__name__: package.__version__ for package in (keras, tf, np, keras_rpe)},
        },
        "commands": commands(run.folder, run.out, run.settings, run.epochs),
        "figures": figures,
        "figures_on": f"{len(run.validation)} images held out, with {matchings[0].n_true} "
        "instances",
        "limits": [
            "The epoch was chosen by some of the images held out, and they come from the same "
            "folder as those trained on: other sources of images are not tested."
        ],
    }
    model.save_to_preset(run.out / "preset", notes)


def commands(folder: Path, out: Path, settings: dict[str, Any], epochs: int) -> dict[str, str]:
    """The commands that train and evaluate again, with the settings that were used.

    Args:
        folder: Folder of the images.
        out: Folder of the run.
        settings: The settings of the run by the names of their options.
        epochs: Number of the last epoch.

    Example:
        >>> from pathlib import Path
        >>> from keras_rpe_cli.train import commands
        >>> lines = commands(Path("A"), Path("B"), {"seed": 3, "preset": None}, 2)
        >>> lines["train"]
        'keras-rpe train A --out B --epochs 2 --seed 3'
        >>> lines["evaluate"]
        'keras-rpe evaluate A --preset B/preset --names B/validation.txt'
    """
    words = ["keras-rpe", "train", str(folder), "--out", str(out), "--epochs", str(epochs)]
    for key, value in settings.items():
        if value is not None and key not in ("folder", "image_names"):
            words += [f"--{key.replace('_', '-')}", str(value)]
    evaluate = ["keras-rpe", "evaluate", str(folder), "--preset", str(out / "preset")]
    for key in ("images", "instances"):
        if key in settings:
            evaluate += [f"--{key}", str(settings[key])]
    evaluate += ["--names", str(out / "validation.txt")]
    return {"train": shlex.join(words), "evaluate": shlex.join(evaluate)}
