"""The command `boundaries`."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_rpe_cli.options import (
    InputsArgument,
    ModelOption,
    OutOption,
    PresetOption,
    ScalesOption,
    check_model_choice,
    load_task,
    parsed_scales,
    process_images,
    write_all,
)
from keras_rpe_cli.report import counted

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
    scales: ScalesOption = None,
) -> None:
    """Detect the boundaries of objects in photographs.

    For NAME.jpg, writes OUT/NAME.png, how likely each pixel is a boundary
    (gray of 8 bits, 255 is certain), and OUT/NAME_thin.png, the same on the
    crests and 0 elsewhere: the map that benchmarks of boundaries take.
    """
    check_model_choice(preset, model)
    factors = parsed_scales(scales)
    endings = [".png", "_thin.png"] if thin else [".png"]

    def process(
        network: BoundaryDetector, file: Path, name: str, image: np.ndarray
    ) -> Callable[[], str]:
        if image.dtype.kind != "u":
            raise ValueError(f"{file} holds values of type {image.dtype}, not of 8 or 16 bits.")
        found = detect(network, image, factors)
        targets = [out / f"{name}{ending}" for ending in endings]

        def write() -> str:
            maps = (found.probabilities, found.thinned)
            write_all({path: partial(_write_png, values) for path, values in zip(targets, maps)})
            return str(targets[0])

        return write

    process_images(
        inputs,
        out,
        endings,
        partial(load_task, preset, model, "BoundaryDetector"),
        process,
        lambda done: f"boundaries of {counted(done, 'image')}, written to {out}",
    )


def detect(network: BoundaryDetector, image: np.ndarray, scales: Sequence[float]) -> Boundaries:
    """Detect the boundaries in an image of 8 or 16 bits, whose largest value stands for white."""
    import numpy as np

    white = network.get_config()["max_value"]
    pixels = image * np.float32(white / np.iinfo(image.dtype).max)
    return network.predict_boundaries(pixels, scales)


def _write_png(values: np.ndarray, path: Path) -> None:
    import numpy as np
    from PIL import Image

    from keras_rpe.written_file import write_file

    buffer = io.BytesIO()
    Image.fromarray(np.rint(255 * values).astype(np.uint8)).save(buffer, format="PNG")
    write_file(path, buffer.getvalue())
