"""What `segment` does with images that do not fit into memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from keras_rpe_cli.options import output_folder
from keras_rpe_cli.report import (
    counted,
    one_line,
    print_device,
    print_error,
    print_warning,
    progress_bar,
)

if TYPE_CHECKING:
    from keras_rpe.models import InstanceSegmenter

_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")
_LARGE = 2**26  # Pixels, from which a TIFF is segmented in tiles.


def is_large_image(text: str) -> bool:
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


def segment_large_images(
    inputs: list[str],
    out: Path,
    model: InstanceSegmenter,
    diameter: float | str,
    channel: int | None,
    suffix: str,
    scheduler: str | None,
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
                    )
                except ValueError as error:
                    print_error(one_line(error))
                    failures += 1
                    continue
            if found.too_large:  # The library warns of it, and commands turn warnings off.
                print_warning(
                    f"{text}: {counted(found.too_large, 'instance')} longer than the {found.halo} "
                    "pixels by which tiles overlap may have come apart: give a larger --diameter"
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
    tenths = [0]
    with progress_bar(name, 1) as advance:
        shown = [0]

        def progress(done: int, total: int) -> None:
            if sys.stderr.isatty():
                advance((done - shown[0]) / total)
            elif 10 * done // total > tenths[0]:
                typer.echo(f"{name}: {done} of {total} tiles")
            tenths[0], shown[0] = 10 * done // total, done

        yield progress
