"""The command `train`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from keras_rpe_cli.options import load_task, output_folder
from keras_rpe_cli.report import (
    counted,
    import_keras_rpe,
    one_line,
    print_device,
    print_warning,
)

if TYPE_CHECKING:
    from keras_rpe.data import LabelledImages
    from keras_rpe.models import InstanceSegmenter

_LEARNING_RATE, _FINE_TUNING_RATE = 1e-3, 3e-4
_MIN_STEPS = 16
_MAX_WATCHED = 16
_FEW_WATCHED = 5
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
    precision: Annotated[
        Literal["float32", "mixed_float16", "mixed_bfloat16"],
        typer.Option(help="Numbers that the network computes with; mixed ones are for GPUs."),
    ] = "float32",
    jit: Annotated[
        bool | None,
        typer.Option(
            "--jit/--no-jit", help="Compile steps by XLA. Default: where Keras thinks it helps."
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
    print_device()
    import keras

    from keras_rpe.arguments import check_number
    from keras_rpe.callbacks import TrainingState
    from keras_rpe.data import label_folder
    from keras_rpe.written_file import write_file

    if learning_rate is None:
        learning_rate = _LEARNING_RATE if preset is None else _FINE_TUNING_RATE
    check_number("--learning-rate", learning_rate)
    found = label_folder(folder, images=images, instances=instances)
    if len(found) < 2:
        raise ValueError(
            f"{folder} holds one image with labels, and --validation-split needs two, to train on "
            "one and to validate on the other."
        )
    training, validation = found.split(validation_split, seed)
    settings = {
        "folder": str(folder.resolve()),
        "image_names": _names_digest(found.names),
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
        "precision": None if precision == "float32" else precision,
        "jit": jit,
    }
    licences = {"licence": licence, "data_licence": data_licence}
    run = _Run(folder, out, training, validation, settings, epochs, patience, licences)
    policy = keras.config.dtype_policy()
    with output_folder(out), contextlib.ExitStack() as stack:
        _check_settings(out, settings)
        stack.callback(keras.config.set_dtype_policy, policy)
        keras.config.set_dtype_policy(precision)
        model, epoch = _model(run)
        write_file(out / _SETTINGS, json.dumps(settings, indent=2) + "\n")
        write_file(out / "validation.txt", "".join(f"{name}\n" for name in validation.names))
        if epoch >= epochs:
            typer.echo(f"all {epochs} epochs are done; train further with a larger --epochs")
        elif TrainingState.is_stalled(out, patience):
            typer.echo(
                f"training has ended after epoch {epoch}: no better val_ap50 in {patience} epochs; "
                "train further with a larger --patience"
            )
        else:
            if epoch:
                typer.echo(f"continuing after epoch {epoch}")
            epoch = _fit(run, model, epoch)
        written, best = out / "preset" / "metadata.json", out / "best.keras"
        # A kill may come between the best model and its preset.
        is_current = written.is_file() and best.is_file()
        if not is_current or written.stat().st_mtime < best.stat().st_mtime:
            _save_preset(run, model, epoch)
    typer.echo(f"best model: {out / 'preset'}")
    typer.echo(f"use it with: keras-rpe segment IMAGES --preset {out / 'preset'} --out RESULTS")


def _names_digest(names: Sequence[str]) -> str:
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
    shown = {
        key: ["left out" if it is None else it for it in (before.get(key), value)]
        for key, value in settings.items()
        if before.get(key) != value
    }
    differences = [
        f"{names.get(key, '--' + key.replace('_', '-'))} {old}, not {new}"
        for key, (old, new) in shown.items()
    ]
    if differences:
        raise ValueError(
            f"The run in {run} was started with {'; '.join(differences)}: repeat its settings, or "
            "choose another folder with --out."
        )


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
        model = load_task(run.settings["preset"], None, "InstanceSegmenter")
        if model.num_classes > 1:
            raise ValueError(
                "--preset must be of a model with one class, as label images hold no classes. "
                f"Received: {run.settings['preset']} with {model.num_classes} classes"
            )
        model = model.with_dtype_policy(keras.config.dtype_policy().name)
    else:
        model = InstanceSegmenter(
            run.settings["backbone"], backbone_weights=run.settings["backbone_weights"]
        )
    model.compile(
        keras.optimizers.AdamW(
            run.settings["learning_rate"], weight_decay=1e-4, global_clipnorm=1.0
        ),
        jit_compile="auto" if run.settings["jit"] is None else run.settings["jit"],
    )
    return model, 0


def _fit(run: _Run, model: InstanceSegmenter, epoch: int) -> int:
    """Train until the last epoch, or until val_ap50 stalls; the number of epochs then."""
    import keras

    from keras_rpe.callbacks import InstanceEvaluation, TrainingState
    from keras_rpe.written_file import write_file

    settings = run.settings
    # A small folder still makes `_MIN_STEPS` steps of an epoch.
    repeats = math.ceil(_MIN_STEPS * settings["batch_size"] / len(run.training))
    dataset = run.training.crops(
        settings["crop_size"],
        settings["batch_size"],
        repeats=settings["repeats"] or repeats,
        # The epochs of a continued run get other crops than those before.
        seed=settings["seed"] + epoch,
    )
    typer.echo(
        f"training on {counted(len(run.training), 'image')}, validating on "
        f"{counted(len(run.validation), 'image')}, {counted(len(dataset), 'step')} an epoch"
    )
    if len(run.validation) < _FEW_WATCHED:
        print_warning(
            f"{counted(len(run.validation), 'validation image')} cannot tell well which epoch is "
            f"best: label more images, or raise --validation-split {settings['validation_split']:g}"
        )
    typer.echo(f"an epoch shows\n{_columns(list(model.output))}")
    typer.echo("compiling: the first step takes longer …")
    watched = [(image, labels) for image, labels, _ in run.validation[:_MAX_WATCHED]]
    log = run.out / "log.csv"
    if log.is_file():
        # Of a run that was killed, the log may be ahead of the state.
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        write_file(log, "".join(lines[: epoch + 1] if epoch else []))
    state = TrainingState(run.out, monitor="val_ap50", mode="max", patience=run.patience)

    def rate(epoch: int) -> float:
        fall = 0.5 + 0.5 * math.cos(math.pi * epoch / run.epochs)
        return settings["learning_rate"] * (0.01 + 0.99 * fall)

    def check_loss(epoch: int, logs: dict[str, Any]) -> None:
        if not math.isfinite(logs.get("loss", 0.0)):
            raise ValueError(
                f"The loss of epoch {epoch + 1} is not finite: start a new run with a lower "
                "--learning-rate."
            )

    try:
        with quick_interruption(run.out):
            history = model.fit(
                dataset,
                epochs=run.epochs,
                initial_epoch=epoch,
                # A bar on a terminal, else a line for each epoch.
                verbose=1 if sys.stdout.isatty() else 2,
                callbacks=[
                    keras.callbacks.LearningRateScheduler(rate),
                    # Before the state, which must not hold a model of a failed epoch.
                    keras.callbacks.LambdaCallback(on_epoch_end=check_loss),
                    InstanceEvaluation(watched),
                    keras.callbacks.CSVLogger(str(log), append=True),
                    state,
                ],
            )
    except Exception as error:
        # TensorFlow and JAX speak of exhausted resources, PyTorch of memory.
        said = f"{type(error).__name__} {error}"
        if re.search("resource_?exhausted|out of memory", said, re.IGNORECASE):
            raise ValueError(
                "The memory is too small for this model: lower --batch-size or --crop-size."
            ) from error
        # The sentence of an assertion in the data, out of what TensorFlow puts around it.
        found = re.search(r"assertion failed: \[b?['\"]?(.*?)['\"]?\]", str(error), re.DOTALL)
        if type(error).__name__ != "InvalidArgumentError":
            raise
        raise ValueError(found.group(1) if found else one_line(error)[:300]) from error
    if state.wait >= run.patience:
        typer.echo(f"no better val_ap50 in {run.patience} epochs")
    return epoch + len(history.epoch)


def _columns(outputs: Sequence[str]) -> str:
    """What the figures in an epoch's line mean."""
    meanings = {"loss": "weighted sum of the losses"}
    for name in outputs:
        meanings[f"{name}_loss"] = {
            "embedding": "of pairs of pixels, before mean shift",
            "semantic": "of objects against background",
            "size": "of the diameter of objects",
        }.get(name, f"of pairs of pixels, after loop {name.removeprefix('shift_')}")
    meanings["val_ap50"] = "average precision at IoU 0.5 of validation images; 1 is best"
    meanings["val_pq50"] = "panoptic quality of the same"
    width = max(map(len, meanings))
    return "\n".join(f"  {name:<{width}}  {meaning}" for name, meaning in meanings.items())


@contextlib.contextmanager
def quick_interruption(out: Path) -> Iterator[None]:
    """End at once after Ctrl-C, and say what the run has kept.

    Python handles a signal when a call of the backend returns, which can take many seconds while
    it compiles; the file descriptor is written at once. States are complete or not there, so the
    process may end anywhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def end_after_signal() -> None:
        while byte := os.read(reading, 1):
            if byte[0] == signal.SIGINT:
                os.write(2, f"\n{_kept(out)}\n".encode())
                os._exit(130)

    handler = signal.signal(signal.SIGINT, lambda *_: None)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=end_after_signal, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, handler)
        os.close(writing)  # The watcher reads the end.
        watcher.join()
        os.close(reading)


def _kept(out: Path) -> str:
    """What an interrupted run has kept, and how to go on."""
    states = sorted(path.name for path in out.glob("epoch-*"))
    if not states:
        return "interrupted in the first epoch: nothing is kept but the settings"
    kept = [str(out / states[-1]), *(map(str, out.glob("best.keras")))]
    epoch = int(states[-1].removeprefix("epoch-"))
    return (
        f"interrupted: {' and '.join(kept)} are kept; the same command continues after epoch "
        f"{epoch}, and with --epochs {epoch} makes a preset of the best model"
    )


def _save_preset(run: _Run, model: InstanceSegmenter, epochs: int) -> None:
    """Write the best model of the run as its preset, with figures of the images held out."""
    import keras

    import keras_rpe
    from keras_rpe_cli.evaluate import match_images

    best = run.out / "best.keras"
    if best.is_file():
        model = keras.saving.load_model(best, compile=False)
    # It is not known where the preset will run.
    model = model.with_dtype_policy("float32")
    matchings, _ = match_images(model, run.validation, _THRESHOLDS)
    figures = {f"AP at IoU {m.threshold:g}": round(m.average_precision, 4) for m in matchings}
    figures["PQ at IoU 0.5"] = round(matchings[0].panoptic_quality, 4)
    initial = "random weights"
    for key, kind in (("backbone_weights", "backbone weights"), ("preset", "preset")):
        if run.settings[key]:
            initial = f"{kind} {Path(run.settings[key]).name}"
    notes = {
        "task": "instance segmentation",
        "backbone": getattr(model.backbone, "name", ""),
        "initialised_from": initial,
        "trained_on": f"{len(run.training)} images of {run.folder.resolve().name}",
        **run.licences,
        "seed": run.settings["seed"],
        "epochs": epochs,
        "versions": {
            "python": platform.python_version(),
            "keras_rpe": keras_rpe.__version__,
            **{name: version(name) for name in ("keras", keras.backend.backend(), "numpy")},
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
    """The commands that train and evaluate again, with the settings that were used."""
    words = ["keras-rpe", "train", str(folder), "--out", str(out), "--epochs", str(epochs)]
    for key, value in settings.items():
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{key}")
        elif value is not None and key not in ("folder", "image_names"):
            words += [f"--{key.replace('_', '-')}", str(value)]
    evaluate = ["keras-rpe", "evaluate", str(folder), "--preset", str(out / "preset")]
    for key in ("images", "instances"):
        if key in settings:
            evaluate += [f"--{key}", str(settings[key])]
    evaluate += ["--names", str(out / "validation.txt")]
    return {"train": shlex.join(words), "evaluate": shlex.join(evaluate)}
