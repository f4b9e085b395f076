"""The image files that a command was given, and where their results go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from keras_rpe.cli.report import one_line, print_error


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
        >>> from keras_rpe.cli.image_inputs import check_targets
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
