"""The command `boundaries`."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_rpe_cli.options import (
    InputsArgument,
    ModelOption,
    OutOption,
    PresetOption,
    check_model_choice,
    check_targets,
    find_files,
    load_detector,
    output_folder,
    write_all,
)
from keras_rpe_cli.report import counted, import_keras_rpe, one_line, print_error, progress_bar

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.models import Boundaries, BoundaryDetector


def boundaries(
    inputs: InputsArgument,
    out: OutOption,
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
    import_keras_rpe()
    files, failures = find_files(inputs)
    check_targets(files, lambda file: _targets(file, out, thin))
    done = 0
    with output_folder(out):
        network = load_detector(preset, model)
        with progress_bar("detecting", len(files)) as advance:
            for file in files:
                written = _detect_file(network, file, _targets(file, out, thin))
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


def _detect_file(network: BoundaryDetector, file: Path, targets: list[Path]) -> bool:
    """Detect the boundaries in one file and write them; whether that was possible."""
    from keras_rpe.data import ImageFileError, read_image

    try:
        image = read_image(file)
        if image.dtype.kind != "u":
            raise ImageFileError(f"{file} holds values of type {image.dtype}, not of 8 or 16 bits.")
        found = detect(network, image)
    except ValueError as error:
        print_error(one_line(error))
        return False
    maps = (found.probabilities, found.thinned)
    write_all({target: partial(_write_png, values) for target, values in zip(targets, maps)})
    typer.echo(f"{file}: {targets[0]}")
    return True


def detect(network: BoundaryDetector, image: np.ndarray) -> Boundaries:
    """Detect the boundaries in an image of 8 or 16 bits, whose largest value stands for white."""
    import numpy as np

    white = network.get_config()["max_value"]
    return network.predict_boundaries(image * np.float32(white / np.iinfo(image.dtype).max))


def _write_png(values: np.ndarray, path: Path) -> None:
    import numpy as np
    from PIL import Image

    from keras_rpe.written_file import write_file

    buffer = io.BytesIO()
    Image.fromarray(np.rint(255 * values).astype(np.uint8)).save(buffer, format="PNG")
    write_file(path, buffer.getvalue())
