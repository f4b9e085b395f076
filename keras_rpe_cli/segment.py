"""The command `segment`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from keras_rpe_cli.options import (
    InputsArgument,
    ModelOption,
    OutOption,
    PresetOption,
    check_model_choice,
    check_targets,
    find_files,
    load_segmenter,
    output_folder,
    segment_image,
    write_all,
)
from keras_rpe_cli.report import counted, import_keras_rpe, one_line, print_error, progress_bar

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
    import_keras_rpe()
    files, failures = find_files(inputs)
    endings = ("labels.png", "labels.tif", "overlay.png")
    check_targets(files, lambda file: [out / f"{file.stem}_{ending}" for ending in endings])
    with output_folder(out):
        table = _InstanceTable(out / "instances.csv")
        network = load_segmenter(preset, model)
        images, instances = 0, 0
        try:
            with progress_bar("segmenting", len(files)) as advance:
                for file in files:
                    count = _segment_file(network, file, out, suffix, overlay, table)
                    failures += count is None
                    images, instances = images + (count is not None), instances + (count or 0)
                    advance()
        finally:
            # Also after Ctrl-C or on a full disk: the table lists the images that are done.
            if images:
                table.write()
    text = f"{counted(instances, 'instance')} in {counted(images, 'image')}"
    typer.echo(f"{text}, written to {out}" if images else "no image was segmented")
    if failures:
        raise typer.Exit(1)


def _segment_file(
    network: InstanceSegmenter,
    file: Path,
    out: Path,
    suffix: str,
    overlay: bool,
    table: _InstanceTable,
) -> int | None:
    """Segment one file and write its results; its number of instances, or None if it is bad."""
    from keras_rpe.data import read_image

    try:
        image = read_image(file)
        result = segment_image(network, image, str(file))
    except ValueError as error:
        print_error(one_line(error))
        return None
    _write_results(image, result, file.stem, out, suffix, overlay)
    table.add(file.stem, result)
    typer.echo(f"{file}: {counted(len(result), 'instance')}")
    return len(result)


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


class _InstanceTable:
    """A CSV file with a row for every instance of every image of a folder of results.

    The rows that the file has already stay, except those of images that are added again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, list[list[str]]] = {}
        if not path.exists():
            return
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
            self._rows.setdefault(row[0], []).append(row)

    def add(self, image: str, instances: Instances) -> None:
        """Put in the rows of an image; bottom and right are the first row and column beyond."""
        columns = zip(instances.areas, instances.scores, instances.classes, instances.boxes)
        self._rows[image] = [
            [image, str(number), str(area), f"{score:.4f}", str(kind), *map(str, box)]
            for number, (area, score, kind, box) in enumerate(columns, start=1)
        ]

    def write(self) -> None:
        from keras_rpe.written_file import write_file

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for rows in self._rows.values():
            writer.writerows(rows)
        write_file(self._path, text.getvalue())
