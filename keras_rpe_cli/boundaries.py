"""The command `boundaries`."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_rpe_cli.options import (
    ModelOption,
    PresetOption,
    check_model_choice,
    check_targets,
    find_files,
    load_detector,
    output_folder,
)
from keras_rpe_cli.report import counted, import_keras_rpe, one_line, print_error, progress_bar

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.models import BoundaryDetector

MapFunction = Callable[["np.ndarray"], tuple["np.ndarray", "np.ndarray"]]


def read_photograph(path: Path) -> np.ndarray:
    """Read an image whose type of values says what is white.

    Args:
        path: A PNG, JPEG or TIFF file.

    Returns:
        uint8 or uint16, `(H, W)`, `(H, W, 3)` or `(H, W, 4)`.

    Raises:
        ImageFileError: If it cannot be read, or is not one of 8 or 16 bits.
    """
    from keras_rpe.data import ImageFileError, read_image

    image = read_image(path)
    if image.dtype.kind != "u":
        raise ImageFileError(f"{path} holds values of type {image.dtype}, not of 8 or 16 bits.")
    return image


def map_function(model: BoundaryDetector) -> MapFunction:
    """Compile what gives an image's boundaries and the thinned ones, in one run of the network.

    Args:
        model: The model.

    Returns:
        A function of an image, uint8 or uint16, whose largest value is taken as white. It gives
        the boundaries and those thinned, each `(H, W)`, float32 in [0, 1].
    """
    import numpy as np

    from keras_rpe.models.task import compiled_function
    from keras_rpe.results import rgb_array

    white = model.get_config()["max_value"]
    detect = compiled_function(model.serve, [(None, None, None, 3)])

    def maps(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = rgb_array(image) * np.float32(white / np.iinfo(image.dtype).max)
        found = detect(pixels[None])
        return np.asarray(found["boundaries"])[0], np.asarray(found["thin"])[0]

    return maps


def boundaries(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUTS", help="Images, folders of images, or globs.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    preset: PresetOption = None,
    model: ModelOption = None,
    thin: Annotated[
        bool, typer.Option("--thin/--no-thin", help="Also write the boundaries thinned to lines.")
    ] = True,
) -> None:
    """Detect the boundaries of objects in photographs.

    For NAME.jpg, writes OUT/NAME.png, how likely each pixel is a boundary
    (gray of 8 bits, 255 is certain), and OUT/NAME_thin.png, the same on the
    crests and 0 elsewhere: the map that benchmarks of boundaries take.
    """
    check_model_choice(preset, model)
    import_keras_rpe()  # the package of the image reader needs it
    files, failures = find_files(inputs)
    check_targets(files, lambda file: _targets(file, out, thin))
    done = 0
    with output_folder(out):
        maps_of = map_function(load_detector(preset, model))
        with progress_bar("detecting", len(files)) as advance:
            for file in files:
                written = _detect_file(maps_of, file, out, thin)
                failures += not written
                done += written
                advance()
    found = f"boundaries of {counted(done, 'image')}, written to {out}"
    typer.echo(found if done else "no image was done")
    if failures:
        raise typer.Exit(1)


def _targets(file: Path, out: Path, thin: bool) -> list[Path]:
    names = [f"{file.stem}.png", f"{file.stem}_thin.png"]
    return [out / name for name in names[: 1 + thin]]


def _detect_file(maps_of: MapFunction, file: Path, out: Path, thin: bool) -> bool:
    """Detect the boundaries in one file and write them; whether that was possible."""
    try:
        maps = maps_of(read_photograph(file))
    except ValueError as error:
        print_error(one_line(error))
        return False
    from keras_rpe.written_file import write_file

    targets = _targets(file, out, thin)
    first, *others = zip(targets, [_png(values) for values in maps])
    write_file(*first)
    try:
        for target, content in others:
            write_file(target, content)
    except BaseException:
        # An image has all of its results or none, and not those of two runs.
        for target in targets:
            target.unlink(missing_ok=True)
        raise
    typer.echo(f"{file}: {targets[0]}")
    return True


def _png(values: np.ndarray) -> bytes:
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.rint(255 * values).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
