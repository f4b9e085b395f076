"""`keras-rpe segment`: the instances of image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from keras_rpe.cli.image_inputs import check_targets, find_files
from keras_rpe.cli.instance_table import InstanceTable
from keras_rpe.cli.model_option import (
    ModelOption,
    PresetOption,
    check_model_choice,
    load_segmenter,
    segment_image,
)
from keras_rpe.cli.output_folder import output_folder
from keras_rpe.cli.report import counted, one_line, print_error, progress_bar
from keras_rpe.cli.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.models import Instances, InstanceSegmenter

_LARGEST_PNG_ID = 65535
_LABEL_SUFFIXES = ("png", "tif")


def segment(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUTS", help="Images, folders of images, or globs.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
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
    import_tensorflow()  # the package of the image reader needs it
    files, failures = find_files(inputs)
    check_targets(files, lambda file: _targets(file, out))
    with output_folder(out):
        table = InstanceTable(out / "instances.csv")
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


def _targets(file: Path, out: Path) -> list[Path]:
    labels = [out / f"{file.stem}_labels.{suffix}" for suffix in _LABEL_SUFFIXES]
    return [*labels, out / f"{file.stem}_overlay.png"]


def _segment_file(
    network: InstanceSegmenter,
    file: Path,
    out: Path,
    suffix: str,
    overlay: bool,
    table: InstanceTable,
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
    from keras_rpe.data import write_image, write_labels
    from keras_rpe.visualization import overlay_instances

    picture = overlay_instances(image, result.labels) if overlay else None
    labels = out / f"{name}_labels.{suffix if len(result) <= _LARGEST_PNG_ID else 'tif'}"
    write_labels(labels, result.labels)
    if picture is not None:
        try:
            write_image(out / f"{name}_overlay.png", picture)
        except BaseException:
            # An image has all of its results or none.
            labels.unlink(missing_ok=True)
            raise
