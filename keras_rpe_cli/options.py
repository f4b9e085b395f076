"""Options that several commands take, and what they stand for."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from keras_rpe_cli.image_table import ImageTable
from keras_rpe_cli.report import (
    counted,
    import_keras_rpe,
    one_line,
    print_device,
    print_error,
    print_warning,
    progress_bar,
)

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.models import Instances, InstanceSegmenter

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

DiameterOption = Annotated[
    str,
    typer.Option(
        metavar="auto|PX",
        help="Diameter of the objects, √(4 area / π) in pixels; auto: it is estimated.",
    ),
]

ScalesOption = Annotated[
    str | None,
    typer.Option(
        metavar="S,S,…",
        help="Factors of the size of the image, such as 0.5,1,1.5: the boundaries found at each "
        "are averaged. Default: 1.",
    ),
]

ChannelOption = Annotated[
    int | None, typer.Option(min=1, help="Only this channel of each image, from 1, as gray.")
]
PageOption = Annotated[
    int | None, typer.Option(min=1, help="Only this page of each stack, from 1.")
]
ProjectOption = Annotated[
    Literal["max", "mean"] | None, typer.Option(help="Each stack as one image, over its pages.")
]

_COMMANDS = {
    "InstanceSegmenter": "segment",
    "ObjectProposer": "propose",
    "BoundaryDetector": "boundaries",
    "SemanticSegmenter": "classes",
}


def check_model_choice(preset: str | None, model: Path | None) -> None:
    """Check that one of `--preset` and `--model` was given, and that the file exists."""
    if (preset is None) == (model is None):
        raise typer.BadParameter("give either --preset or --model", param_hint="--preset")
    if model is not None and not (model.is_file() and model.suffix == ".keras"):
        raise ValueError(f"--model needs an existing .keras file. Received: {model}")


def parsed_scales(text: str | None) -> tuple[float, ...]:
    """The numbers of `--scales`; the model checks how large they are."""
    try:
        return tuple(map(float, (text or "1").split(",")))
    except ValueError:
        raise ValueError(
            f"--scales needs numbers with commas between them, such as 0.5,1,1.5. Received: {text}"
        ) from None


def load_model(source: str, *classes: str) -> Any:
    """Load a preset by its name or folder, or a `.keras` file, if it is of one of the classes."""
    is_file = Path(source).suffix == ".keras"
    return load_task(None if is_file else source, Path(source) if is_file else None, *classes)


def load_task(preset: str | None, model: Path | None, *classes: str) -> Any:
    """Load the model of `--preset` or `--model`, not compiled."""
    check_model_choice(preset, model)
    import_keras_rpe()
    from keras_rpe.models import PresetError, Task, load_keras_file

    if preset is not None:
        option = f"--preset {preset}"
        loaded: Any = Task.from_preset(preset)
    else:
        option = f"--model {model}"
        try:
            loaded = load_keras_file(str(model))
        except PresetError as error:
            raise ValueError(f"{option} cannot be used: {error}") from error
    name = type(loaded).__name__
    if not isinstance(loaded, Task) or (classes and name not in classes):
        command = f", which `keras-rpe {_COMMANDS[name]}` takes" if name in _COMMANDS else ""
        raise ValueError(
            f"{option} must be of class {' or '.join(classes) or 'Task'}. "
            f"Received: one of class {name}{command}"
        )
    if model is not None:
        loaded.source = str(model)
    return loaded


def parsed_diameter(text: str) -> float | str:
    """The value of `--diameter`."""
    with contextlib.suppress(ValueError):
        return float(text)
    if text != "auto":
        raise ValueError(f"--diameter needs auto or a number of pixels. Received: {text}")
    return text


def segment_image(
    model: InstanceSegmenter, image: Any, name: str, diameter: float | str = "auto"
) -> Instances:
    """Segment one image and print what the model warns of as a line that begins with `name`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        instances = model.predict_instances(image, diameter)
    for warning in caught:
        print_warning(f"{name}: {one_line(warning.message)}")
    return instances


def process_images(
    inputs: list[str],
    out: Path,
    endings: Sequence[str],
    load: Callable[[], Any],
    process: Callable[[Any, Path, str, np.ndarray], Callable[[], str]],
    summary: Callable[[int], str],
    tables: Sequence[ImageTable] = (),
    **chosen: Any,
) -> None:
    """Read all images that the inputs stand for, once each, and process them one by one.

    What is wrong with an input or an image is printed, and does not stop the others. `process`
    takes the model, the file, the name of its results and its pixels, and gives a function that
    writes the results and tells what is printed; `endings` are those of the files that it may
    write. While an image is processed, the one before is written and the next is read. `chosen`
    says which part of a file is read. At the end, the tables are written and the summary of so many
    images is printed; the command fails if one of them did.
    """
    import_keras_rpe()
    from keras_rpe.data import ImageFileError, find_images, read_image

    found: dict[Path, Path] = {}
    failures = 0
    for text in inputs:
        try:
            images = find_images(text)
        except ImageFileError as error:
            print_error(one_line(error))
            failures += 1
            continue
        for file in images:
            found.setdefault(file.resolve(), file)
        _print_skipped(Path(text), images)
    if not found:
        raise typer.Exit(1)
    names = _result_names(list(found.values()))
    taken: dict[str, Path] = {}
    for file in found.values():
        for target in (out / f"{names[file]}{ending}" for ending in endings):
            # Some file systems take A.png and a.png for one name.
            other = taken.setdefault(str(target).lower(), file)
            if other is not file:
                raise ValueError(
                    "INPUTS must differ in the names of their results, which are theirs without "
                    f"ending. Received: {other} and {file}, both with the result {target.name}"
                )
            if target.resolve() in found:
                raise ValueError(
                    f"--out must be a folder where no result overwrites an input, but the result "
                    f"of {file} would overwrite {target}."
                )
    files = list(found.values())
    done = 0

    def report(file: Path, result: Future[str]) -> None:
        nonlocal done, failures
        try:
            typer.echo(f"{file}: {result.result()}")
            done += 1
        except ValueError as error:
            print_error(one_line(error))
            failures += 1

    with output_folder(out), ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        model = load()
        print_device()
        read = reader.submit(read_image, files[0], **chosen)
        before: tuple[Path, Future[str]] | None = None
        with progress_bar("processing", len(files)) as advance:
            try:
                for file, following in zip(files, [*files[1:], None]):
                    reading = read
                    if following is not None:
                        read = reader.submit(read_image, following, **chosen)
                    result: Future[str] = Future()
                    write = None
                    try:
                        write = process(model, file, names[file], reading.result())
                    except ValueError as error:
                        result.set_exception(error)
                    if before is not None:
                        report(*before)
                    before = file, writer.submit(write) if write else result
                    advance()
                if before is not None:
                    report(*before)
            finally:
                reader.shutdown(cancel_futures=True)
                writer.shutdown()
                # Also after Ctrl-C or on a full disk: they list the images that are done.
                for table in tables:
                    if table.rows:
                        table.write()
    typer.echo(summary(done) if done else "no image was done")
    if failures:
        raise typer.Exit(1)


def _result_names(files: Sequence[Path]) -> dict[Path, str]:
    """What the results of each file are called: as the file, without ending where that is clear."""
    stems = Counter(file.stem.lower() for file in files)
    return {
        file: file.stem if stems[file.stem.lower()] == 1 else file.name.replace(".", "_")
        for file in files
    }


def _print_skipped(folder: Path, images: Sequence[Path]) -> None:
    """Say which files of a folder are no images."""
    if not folder.is_dir():
        return
    others = sorted(
        file.name
        for file in folder.iterdir()
        if file.is_file() and file not in images and not file.name.startswith(".")
    )
    if others:
        more = ", …" if len(others) > _NAMED else ""
        typer.echo(
            f"{folder}: {counted(len(others), 'file')} skipped that are no images: "
            f"{', '.join(others[:_NAMED])}{more}"
        )


_NAMED = 3


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
    """Make the folder of `--out` to write into, and remove it again if nothing was written."""
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
    """Read the names that are lines of the file of `--names`; without it, `None`."""
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
