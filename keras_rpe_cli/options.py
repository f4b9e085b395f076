"""Options that several commands take, and what they stand for."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_rpe_cli.report import import_keras_rpe, one_line, print_error

if TYPE_CHECKING:
    from keras_rpe.models import BoundaryDetector, Instances, InstanceSegmenter, Task

InputsArgument = Annotated[
    list[str], typer.Argument(metavar="INPUTS", help="Images, folders of images, or globs.")
]
OutOption = Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)]
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
    """Check that one of `--preset` and `--model` was given, and that the file exists."""
    if (preset is None) == (model is None):
        raise typer.BadParameter("give either --preset or --model", param_hint="--preset")
    if model is not None and not (model.is_file() and model.suffix == ".keras"):
        raise ValueError(f"--model needs an existing .keras file. Received: {model}")


def load_preset_or_model(text: str) -> Task:
    """Load the model of an argument: the name of a preset, its folder, or a `.keras` file."""
    if Path(text).suffix == ".keras":
        return load_task(None, Path(text))
    return load_task(text, None)


def load_task(preset: str | None, model: Path | None) -> Task:
    """Load the model of `--preset` or `--model`, of any task and not compiled.

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
    """Load the model of `--preset` or `--model`, which must be an `InstanceSegmenter`."""
    task = load_task(preset, model)
    from keras_rpe.models import InstanceSegmenter

    if not isinstance(task, InstanceSegmenter):
        raise other_task(task, preset, model, "an InstanceSegmenter")
    return task


def load_detector(preset: str | None, model: Path | None) -> BoundaryDetector:
    """Load the model of `--preset` or `--model`, which must be a `BoundaryDetector`."""
    task = load_task(preset, model)
    from keras_rpe.models import BoundaryDetector

    if not isinstance(task, BoundaryDetector):
        raise other_task(task, preset, model, "a BoundaryDetector")
    return task


def other_task(task: Task, preset: str | None, model: Path | None, needed: str) -> ValueError:
    """The error that says that a model is of another task than the command takes.

    With neither `preset` nor `model`, the model is the one of an export.
    """
    name = type(task).__name__
    option = f"--preset {preset}"
    if preset is None:
        option = f"the exported model {task.source}" if model is None else f"--model {model}"
    command = f", which `keras-rpe {_COMMANDS[name]}` takes" if name in _COMMANDS else ""
    return ValueError(f"{option} must be {needed}. Received: one of class {name}{command}")


def segment_image(model: InstanceSegmenter, image: Any, name: str) -> Instances:
    """Segment one image and print what the model warns of as a line that begins with `name`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        instances = model.predict_instances(image)
    for warning in caught:
        message = " ".join(str(warning.message).split())
        typer.echo(f"warning: {name}: {message}", err=True)
    return instances


def find_files(inputs: list[str]) -> tuple[list[Path], int]:
    """List the files that the inputs stand for, once each; report and count those without any.

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


def write_all(files: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write files by functions of their paths: all of them, or none after an error.

    Where the first cannot be written, those of an earlier run stay; after that they go, so that
    the files are never those of two runs.
    """
    written = False
    try:
        for path, write in files.items():
            write(path)
            written = True
    except BaseException:
        if written:
            for path in files:
                path.unlink(missing_ok=True)
        raise


@contextmanager
def output_folder(path: Path) -> Iterator[None]:
    """Make the folder of `--out` to write into, and remove it again if nothing was written.

    Raises:
        ValueError: If it, or one above it, is a file.
        OSError: If it cannot be made or written.

    Example:
        >>> folder = tempfile.mkdtemp()
        >>> with output_folder(Path(folder) / "a" / "b"):
        ...     (Path(folder) / "a" / "b").is_dir()
        True
        >>> (Path(folder) / "a").exists()
        False
    """
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out needs a folder, but {folder} is a file.")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        try:
            # Find out before hours of work whether files can be made and filled here.
            with tempfile.TemporaryFile(dir=path) as file:
                file.write(b"\0")
        except OSError as error:
            raise OSError(
                error.errno, f"--out cannot be written, {error.strerror}", str(path)
            ) from error
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def read_names(names: Path | None) -> set[str] | None:
    """Read the names that are lines of the file of `--names`; without it, `None`.

    Raises:
        ValueError: If the file is not text, or is empty.
        OSError: If it cannot be read.
    """
    if names is None:
        return None
    try:
        lines = names.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--names needs a text file. Received: {names}") from error
    wanted = {line.strip() for line in lines if line.strip()}
    if not wanted:
        raise ValueError(f"--names needs a file with at least one name. Received: {names}")
    return wanted
