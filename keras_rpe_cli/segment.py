"""The command `segment`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from keras_rpe_cli.image_table import ImageTable, table_text
from keras_rpe_cli.options import (
    ChannelOption,
    DiameterOption,
    InputsArgument,
    ModelOption,
    OutOption,
    PageOption,
    PresetOption,
    ProjectOption,
    check_model_choice,
    load_task,
    output_folder,
    parsed_diameter,
    process_images,
    segment_image,
    write_all,
)
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

_LARGEST_PNG_ID = 65535


def segment(
    inputs: InputsArgument,
    out: OutOption,
    preset: PresetOption = None,
    model: ModelOption = None,
    diameter: DiameterOption = "auto",
    channel: ChannelOption = None,
    page: PageOption = None,
    project: ProjectOption = None,
    suffix: Annotated[
        Literal["png", "tif"],
        typer.Option(help="Format of the label images; from 65536 instances on it is tif anyway."),
    ] = "png",
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Also draw instances over the image.")
    ] = True,
    outlines: Annotated[
        list[str] | None,
        typer.Option(
            metavar="geojson|imagej|coco",
            help="Also write outlines, for QuPath, as ROIs of Fiji, or of COCO; may be repeated.",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Also list shape, and mean and maximum of each channel."),
    ] = False,
    pixel_size: Annotated[
        float | None, typer.Option(help="Side of a pixel in µm; default: what the file says.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://HOST:PORT", help="Of dask, whose workers segment the tiles of slides."
        ),
    ] = None,
    table: Annotated[
        Literal["csv", "parquet"], typer.Option(help="Format of the tables of slides.")
    ] = "csv",
) -> None:
    """Segment images.

    For NAME.png, writes OUT/NAME_labels.png (0 is background, k the k-th
    instance) and OUT/NAME_overlay.png, lists the instances of all images in
    OUT/instances.csv, and the images in OUT/summary.csv.

    Slides, zarr folders and TIFFs beyond 8192 x 8192 pixels, are segmented in
    tiles: for NAME.zarr, OUT/NAME_labels.zarr and OUT/NAME_labels.csv. The
    same command continues after a kill.
    """
    check_model_choice(preset, model)
    if page is not None and project is not None:
        raise ValueError(f"--page does not go with --project. Received: {page} and {project}")
    if pixel_size is not None and not 0 < pixel_size < float("inf"):
        raise ValueError(f"--pixel-size needs a positive number. Received: {pixel_size}")
    pixels = parsed_diameter(diameter)
    slides = [text for text in inputs if _is_slide(text)]
    if slides:
        _check_slides(inputs, slides, page, project, outlines, measure)
        # Operations side by side would take another peak of memory in each tile.
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
        network = load_task(preset, model, "InstanceSegmenter")
        if _segment_slides(slides, out, network, pixels, channel, suffix, scheduler, table):
            raise typer.Exit(1)
        return
    for option, given in (("scheduler", scheduler is not None), ("table", table != "csv")):
        if given:
            raise ValueError(f"--{option} goes with slides, not with {', '.join(inputs)}.")
    kinds = list(dict.fromkeys(outlines or []))
    _check_packages(kinds)
    instances = ImageTable(out / "instances.csv", {"image", "instance", "area_px", "centroid_row"})
    images = ImageTable(
        out / "summary.csv", {"image", "instances", "mean_area_px", "pixel_size_um"}
    )
    found: list[int] = []
    begin = time.perf_counter()

    def process(
        network: InstanceSegmenter, file: Path, name: str, image: np.ndarray
    ) -> Callable[[], str]:
        result = segment_image(network, image, str(file), pixels)

        def write() -> str:
            from keras_rpe.data import read_channels, read_pixel_size

            size = pixel_size or read_pixel_size(file)
            _write_results(image, result, out / name, suffix, overlay, size, kinds, file.name)
            channels = read_channels(file, page, project) if measure else None
            table = result.measure(channels, size, shape=measure)
            columns = {
                "image": [file.name] * len(result),
                **{key: map(table_text, column) for key, column in table.items()},
                "class": map(network.class_name, result.classes),
            }
            instances.rows[file.name] = [dict(zip(columns, row)) for row in zip(*columns.values())]
            images.rows[file.name] = [
                {
                    "image": file.name,
                    "height": str(image.shape[0]),
                    "width": str(image.shape[1]),
                    "instances": str(len(result)),
                    "mean_area_px": table_text(result.areas.mean()) if len(result) else "",
                    "diameter_px": table_text(result.diameter) if result.diameter else "",
                    "pixel_size_um": table_text(size) if size else "",
                }
            ]
            found.append(len(result))
            known = f", diameter {result.diameter:.1f} px" if result.diameter else ""
            return f"{counted(len(result), 'instance')}{known}"

        return write

    def summary(done: int) -> str:
        rate = done / (time.perf_counter() - begin)
        text = f"{counted(sum(found), 'instance')} in {counted(done, 'image')}"
        return f"{text}, written to {out}, {rate:.2g} images a second with all loading"

    endings = ("_labels.png", "_labels.tif", "_overlay.png", *(_ENDINGS[kind] for kind in kinds))
    process_images(
        inputs,
        out,
        endings,
        partial(load_task, preset, model, "InstanceSegmenter"),
        process,
        summary,
        [instances, images],
        channel=channel,
        page=page,
        project=project,
    )


def _check_slides(
    inputs: list[str],
    slides: list[str],
    page: int | None,
    project: str | None,
    outlines: list[str] | None,
    measure: bool,
) -> None:
    others = [text for text in inputs if text not in slides]
    if others:
        raise ValueError(
            "INPUTS must be slides or other images, not both. "
            f"Received: {slides[0]} and {others[0]}"
        )
    given = {"page": page, "project": project, "outlines": outlines, "measure": measure or None}
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"--{name} does not go with a slide. Received: {slides[0]}")


_ENDINGS = {"geojson": ".geojson", "imagej": "_rois.zip", "coco": "_coco.json"}


def _check_packages(kinds: Iterable[str]) -> None:
    """Find out before the work whether what writes outlines is installed."""
    import_keras_rpe()
    from keras_rpe.optional_import import optional_import

    for kind in kinds:
        if kind not in _ENDINGS:
            raise ValueError(f"--outlines needs {', '.join(_ENDINGS)}. Received: {kind}")
        if kind == "coco":
            optional_import("pycocotools.mask", "coco")
        else:
            optional_import("rasterio.features", "outlines")
            optional_import("roifile", "outlines")


def _write_results(
    image: np.ndarray,
    result: Instances,
    target: Path,
    suffix: str,
    overlay: bool,
    pixel_size: float | None = None,
    outlines: Iterable[str] = (),
    image_name: str = "",
) -> None:
    from keras_rpe import data
    from keras_rpe.visualization import overlay_instances

    def named(ending: str) -> Path:
        return target.with_name(target.name + ending)

    labels = named(f"_labels.{suffix if len(result) <= _LARGEST_PNG_ID else 'tif'}")
    files: dict[Path, Callable[[Path], object]] = {
        labels: partial(data.write_labels, labels=result.labels, pixel_size=pixel_size)
    }
    if overlay:
        picture = overlay_instances(image, result.labels)
        files[named("_overlay.png")] = partial(data.write_image, rgb=picture)
    writers: dict[str, Callable[[Path], object]] = {
        "geojson": partial(data.write_geojson, instances=result),
        "imagej": partial(data.write_imagej_rois, instances=result),
        "coco": partial(data.write_coco, found=result, image_name=image_name),
    }
    files |= {named(_ENDINGS[kind]): writers[kind] for kind in outlines}
    write_all(files)


_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")
_LARGE = 2**26  # Pixels, from which a TIFF is segmented in tiles.


def _is_slide(text: str) -> bool:
    """Whether an input is a zarr folder, or a TIFF of more than 8192 x 8192 pixels."""
    path = Path(text)
    if path.is_dir():
        return any((path / name).is_file() for name in _ZARR_FILES)
    if path.suffix.lower() not in (".tif", ".tiff") or not path.is_file():
        return False
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return page.imagelength * page.imagewidth > _LARGE
    except Exception:  # Whatever is wrong with it is said when it is read.
        return False


def _segment_slides(
    inputs: list[str],
    out: Path,
    model: InstanceSegmenter,
    diameter: float | str,
    channel: int | None,
    suffix: str,
    scheduler: str | None,
    table: str,
) -> int:
    """Segment images in tiles, one after the other; counts those that failed."""
    from keras_rpe.large import segment_large

    failures = 0
    ending = ".tif" if suffix == "tif" else ".zarr"
    names = [Path(text).stem.removesuffix(".ome") for text in inputs]
    targets = [out / f"{name}_labels{ending}" for name in names]
    if len(set(targets)) < len(targets):
        raise ValueError(f"INPUTS must differ in their names. Received: {', '.join(inputs)}")
    with output_folder(out), _workers(scheduler) as client:
        print_device()
        for text, target in zip(inputs, targets):
            with _tiles_shown(text) as progress:
                try:
                    found = segment_large(
                        text,
                        model,
                        target,
                        diameter,
                        channel=channel,
                        client=client,
                        progress=progress,
                        table=table,
                    )
                except ValueError as error:
                    print_error(one_line(error))
                    failures += 1
                    continue
            if found.too_large:  # The library warns of it, and commands turn warnings off.
                print_warning(
                    f"{text}: {counted(found.too_large, 'instance')} longer than the {found.halo} "
                    "pixels by which tiles overlap, and fragments of them may stand by themselves: "
                    "give a larger --diameter"
                )
            size = f", diameter {found.diameter:.1f} px" if found.diameter else ""
            typer.echo(f"{text}: {counted(found.count, 'instance')}{size}, {found.table}")
    return failures


@contextmanager
def _workers(scheduler: str | None) -> Iterator[Any]:
    if scheduler is None:
        yield None
        return
    from keras_rpe.optional_import import optional_import

    distributed = optional_import("distributed", "large")
    try:
        client = distributed.Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise ValueError(f"--scheduler {scheduler} does not answer: {one_line(error)}") from error
    with client:
        yield client


@contextmanager
def _tiles_shown(name: str) -> Iterator[Any]:
    """A bar with the time left, or a line for each tenth where stderr is no terminal."""
    first: list[int] = []  # How many tiles an earlier call has done.
    shown = [0]
    begin = time.monotonic()
    with progress_bar(name, 1) as advance:

        def progress(done: int, total: int) -> None:
            if not first:
                first.append(done)
            text = f"{name}: {done} of {total} tiles"
            advance((done - shown[0]) / total, text)
            tenth = 10 * done // total > 10 * shown[0] // total
            if tenth and done > first[0] and not sys.stderr.isatty():
                left = (time.monotonic() - begin) / (done - first[0]) * (total - done) / 60
                typer.echo(f"{text}, {left:.1f} minutes left" if done < total else text)
            shown[0] = done

        yield progress
