"""The command `segment`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from keras_rpe_cli.options import (
    DiameterOption,
    InputsArgument,
    ModelOption,
    OutOption,
    PresetOption,
    check_model_choice,
    load_task,
    parsed_diameter,
    process_images,
    segment_image,
    write_all,
)
from keras_rpe_cli.report import counted

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.models import Instances, InstanceSegmenter

_COLUMNS = ["image", "instance", "area", "score", "class", "top", "left", "bottom", "right"]
_LARGEST_PNG_ID = 65535


def segment(
    inputs: InputsArgument,
    out: OutOption,
    preset: PresetOption = None,
    model: ModelOption = None,
    diameter: DiameterOption = "auto",
    suffix: Annotated[
        Literal["png", "tif"],
        typer.Option(help="Format of the label images; from 65536 instances on it is tif anyway."),
    ] = "png",
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Also draw instances over the image.")
    ] = True,
) -> None:
    """Segment images.

    For NAME.png, writes OUT/NAME_labels.png (0 is background, k the k-th
    instance) and OUT/NAME_overlay.png, and lists the instances of all images
    in OUT/instances.csv.
    """
    check_model_choice(preset, model)
    pixels = parsed_diameter(diameter)
    table = out / "instances.csv"
    rows = _read_rows(table)
    done: list[int] = []

    def process(network: InstanceSegmenter, file: Path, image: np.ndarray) -> str:
        result = segment_image(network, image, str(file), pixels)
        _write_results(image, result, file.stem, out, suffix, overlay)
        columns = zip(result.areas, result.scores, result.classes, result.boxes)
        # Bottom and right are the first row and column beyond.
        rows[file.stem] = [
            [file.stem, str(number), str(area), f"{score:.4f}", str(kind), *map(str, box)]
            for number, (area, score, kind, box) in enumerate(columns, start=1)
        ]
        done.append(len(result))
        size = f", diameter {result.diameter:.1f} px" if result.diameter else ""
        return f"{counted(len(result), 'instance')}{size}"

    endings = ("_labels.png", "_labels.tif", "_overlay.png")
    load = partial(load_task, preset, model, "InstanceSegmenter")
    try:
        _, failures = process_images(inputs, out, endings, load, process)
    finally:
        # Also after Ctrl-C or on a full disk: the table lists the images that are done.
        if done:
            _write_rows(table, rows)
    text = f"{counted(sum(done), 'instance')} in {counted(len(done), 'image')}"
    typer.echo(f"{text}, written to {out}" if done else "no image was segmented")
    if failures:
        raise typer.Exit(1)


def _write_results(
    image: np.ndarray, result: Instances, name: str, out: Path, suffix: str, overlay: bool
) -> None:
    from keras_rpe import data
    from keras_rpe.visualization import overlay_instances

    labels = out / f"{name}_labels.{suffix if len(result) <= _LARGEST_PNG_ID else 'tif'}"
    files: dict[Path, Callable[[Path], object]] = {
        labels: partial(data.write_labels, labels=result.labels)
    }
    if overlay:
        picture = overlay_instances(image, result.labels)
        files[out / f"{name}_overlay.png"] = partial(data.write_image, rgb=picture)
    write_all(files)


def _read_rows(path: Path) -> dict[str, list[list[str]]]:
    """The rows of a table of instances for each image, which stay unless it is segmented again."""
    found: dict[str, list[list[str]]] = {}
    if not path.exists():
        return found
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error):
        rows = []
    if not rows or rows[0] != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        raise ValueError(
            f"{path} exists and is not a table that `keras-rpe segment` wrote, choose another "
            "folder with --out."
        )
    for row in rows[1:]:
        found.setdefault(row[0], []).append(row)
    return found


def _write_rows(path: Path, rows: dict[str, list[list[str]]]) -> None:
    from keras_rpe.written_file import write_file

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_COLUMNS, *chain.from_iterable(rows.values())])
    write_file(path, text.getvalue())
