"""The options that choose a model, and the model that they choose."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_rpe.cli.report import print_warning
from keras_rpe.cli.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from keras_rpe.models import BoundaryDetector, Instances, InstanceSegmenter, Task

PresetOption = Annotated[
    str | None,
    typer.Option(
        help="Name of a bundled preset (see `keras-rpe presets`), a folder, or hf://…, kaggle://…, "
        "https://….zip#sha256=…."
    ),
]
ModelOption = Annotated[
    Path | None, typer.Option(help="A model that Keras saved: FILE.keras.", show_default=False)
]

_COMMANDS = {"InstanceSegmenter": "segment", "BoundaryDetector": "boundaries"}


def check_model_choice(preset: str | None, model: Path | None) -> None:
    """Check that one of `--preset` and `--model` was given.

    Raises:
        typer.BadParameter: If none or both were.
        ValueError: If the model file does not exist or has another ending.
    """
    if (preset is None) == (model is None):
        raise typer.BadParameter("give either --preset or --model", param_hint="--preset")
    if model is not None and not (model.is_file() and model.suffix == ".keras"):
        raise ValueError(f"--model needs an existing .keras file. Received: {model}")


def load_preset_or_model(text: str) -> Task:
    """Load the model of an argument that is the name of a preset, its folder, or a `.keras` file.

    Raises:
        ValueError: If there is no such model, or its files are damaged.
    """
    if Path(text).suffix == ".keras":
        return load_task(None, Path(text))
    return load_task(text, None)


def load_task(preset: str | None, model: Path | None) -> Task:
    """Load the model of `--preset` or `--model`, of whatever task.

    Args:
        preset: Name or folder of a preset, or None.
        model: A `.keras` file, or None.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: If there is no such model, or its files are damaged.
    """
    check_model_choice(preset, model)
    import_tensorflow()
    from keras_rpe.models import PresetError, Task, load_keras_file

    if preset is not None:
        return Task.from_preset(preset)
    assert model is not None
    try:
        loaded = load_keras_file(model)
    except PresetError as error:
        raise ValueError(f"--model {model} cannot be used: {error}") from error
    if not isinstance(loaded, Task):
        raise ValueError(f"--model {model} must be a Task. Received: a {type(loaded).__name__}")
    loaded.source = str(model)
    return loaded


def load_segmenter(preset: str | None, model: Path | None) -> InstanceSegmenter:
    """Load the model of `--preset` or `--model`, which must be an `InstanceSegmenter`.

    Raises:
        ValueError: If it is of another task, or as `load_task` says.
    """
    task = load_task(preset, model)
    from keras_rpe.models import InstanceSegmenter

    if not isinstance(task, InstanceSegmenter):
        raise other_task(task, preset, model, "an InstanceSegmenter")
    return task


def load_detector(preset: str | None, model: Path | None) -> BoundaryDetector:
    """Load the model of `--preset` or `--model`, which must be a `BoundaryDetector`.

    Raises:
        ValueError: If it is of another task, or as `load_task` says.
    """
    task = load_task(preset, model)
    from keras_rpe.models import BoundaryDetector

    if not isinstance(task, BoundaryDetector):
        raise other_task(task, preset, model, "a BoundaryDetector")
    return task


def other_task(task: Task, preset: str | None, model: Path | None, needed: str) -> ValueError:
    """The error that says that a model is of another task than the command takes.

    Args:
        task: The model.
        preset: The value of `--preset`, or None.
        model: That of `--model`, or None; with neither, the model is the one of an export.
        needed: What the command takes.
    """
    name = type(task).__name__
    option = f"--preset {preset}"
    if preset is None:
        option = f"the exported model {task.source}" if model is None else f"--model {model}"
    command = f", which `keras-rpe {_COMMANDS[name]}` takes" if name in _COMMANDS else ""
    return ValueError(f"{option} must be {needed}. Received: one of class {name}{command}")


def segment_image(model: InstanceSegmenter, image: Any, name: str) -> Instances:
    """Segment one image and print what the model warns of as a line.

    Args:
        model: The model.
        image: As `predict_instances` takes it.
        name: What a warning calls the image.

    Returns:
        The instances.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        instances = model.predict_instances(image)
    for warning in caught:
        print_warning(f"{name}: {' '.join(str(warning.message).split())}")
    return instances
