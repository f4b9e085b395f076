"""Options that several commands take, and what they stand for."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from keras_rpe_cli.report import import_keras_rpe, one_line, print_error

if TYPE_CHECKING:
    from keras_rpe.data import BoundaryPair, LabelPair
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
    import_keras_rpe()
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
        typer.echo(f"warning: {name}: {' '.join(str(warning.message).split())}", err=True)
    return instances


def find_files(inputs: list[str]) -> tuple[list[Path], int]:
    """List the files that the inputs stand for, once each; inputs without any are reported.

    Args:
        inputs: Image files, folders of images, or globs.

    Returns:
        The files, and the number of inputs without any.

    Raises:
        typer.Exit: If there is no file at all.
    """
    from keras_rpe.data import ImageFileError, find_images

    files: dict[Path, Path] = {}
    failures = 0
    for text in inputs:
        try:
            for file in find_images(text):
                files.setdefault(file.resolve(), file)
        except ImageFileError as error:
            print_error(one_line(error))
            failures += 1
    if not files:
        raise typer.Exit(1)
    return list(files.values()), failures


def check_targets(files: list[Path], targets: Callable[[Path], list[Path]]) -> None:
    """Refuse images whose results would overwrite each other or an input.

    Args:
        files: The images.
        targets: Gives the files that may be written for an image.

    Raises:
        ValueError: If two images have a result of one name, or a result that of an input.

    Example:
        >>> from pathlib import Path
        >>> from keras_rpe_cli.options import check_targets
        >>> check_targets([Path("a.jpg"), Path("b.jpg")], lambda file: [file.with_suffix(".png")])
    """
    taken: dict[str, Path] = {}
    inputs = {file.resolve() for file in files}
    for file in files:
        for target in targets(file):
            # Some file systems take A.png and a.png for one name.
            other = taken.setdefault(str(target).lower(), file)
            if other is not file:
                raise ValueError(
                    "INPUTS must differ in the names of their results, which are theirs without "
                    f"ending. Received: {other} and {file}, both with the result {target.name}"
                )
            if target.resolve() in inputs:
                raise ValueError(
                    f"--out must be a folder where no result overwrites an input, but the result "
                    f"of {file} would overwrite {target}."
                )


@contextmanager
def output_folder(path: Path, option: str = "--out") -> Iterator[Path]:
    """Make a folder to write into, and remove it again if nothing was written.

    Args:
        path: The folder; it and those above it are made where they are missing.
        option: The option that an error names.

    Yields:
        The folder.

    Raises:
        ValueError: If it, or one above it, is a file.
        OSError: If it cannot be made or written.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> with output_folder(Path(folder) / "a" / "b") as made:
        ...     made.is_dir()
        True
        >>> (Path(folder) / "a").exists()
        False
    """
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{option} needs a folder, but {folder} is a file.")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        _check_writable(path, option)
        yield path
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _check_writable(folder: Path, option: str) -> None:
    """Find out before hours of work whether files can be made and filled here."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise OSError(
            error.errno, f"{option} cannot be written, {error.strerror}", str(folder)
        ) from error


Pair = TypeVar("Pair", "LabelPair", "BoundaryPair")


def named_pairs(pairs: Sequence[Pair], names: Path | None, folder: Path) -> list[Pair]:
    """Choose the pairs whose names are in the file of `--names`.

    Args:
        pairs: Images with what people drew into them.
        names: A text file with a name, without ending, a line; None chooses all.
        folder: Where the pairs are from, for the message.

    Returns:
        The chosen pairs, in their order.

    Raises:
        ValueError: If the file is no text, is empty, or has a name of which there is no image.
        OSError: If it cannot be read.
    """
    from keras_rpe.data import LabelFolderError

    if names is None:
        return list(pairs)
    wanted = _read_names(names)
    missing = sorted(wanted - {pair.name for pair in pairs})
    if missing:
        raise LabelFolderError(
            f"--names {names} lists {len(missing)} names of which there is no image in "
            f"{folder}, such as {missing[0]!r}."
        )
    return [pair for pair in pairs if pair.name in wanted]


def _read_names(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--names needs a text file. Received: {path}") from error
    names = {line.strip() for line in lines if line.strip()}
    if not names:
        raise ValueError(f"--names needs a file with at least one name. Received: {path}")
    return names
