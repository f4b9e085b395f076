"""Segment images that do not fit into memory, in tiles, as if they were seen whole."""

from __future__ import annotations

import csv
import functools
import hashlib
import itertools
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_rpe.arguments import check_choice, check_integer, check_number
from keras_rpe.large.image import LargeImage, Run
from keras_rpe.large.join import TIFF_ENDINGS, JoinedLabels, join_tiles
from keras_rpe.large.tiles import (
    TileJob,
    corner_and_contrast,
    loaded_segmenter,
    part_diameter,
    segment_tile,
)
from keras_rpe.models.instance_segmenter import InstanceSegmenter
from keras_rpe.ops.maps import window_grid
from keras_rpe.optional_import import optional_import
from keras_rpe.written_file import write_file

_SETTINGS = "settings.json"
_ENLARGED = 2  # Times the side of a tile, in pixels of an image that is made smaller.
_FARTHEST = 512  # Pixels that a network is asked for whether it sees them.
_SEEN = 1e-4  # Of a change of its outputs.
_RIM = 3  # Pixels at the rim of a tile that are cut, or resized without their neighbors.
_DIAMETERS = 4  # By which a halo is wider where fragments are joined.
_WINDOW = 128  # Cells, of a network that groups images as one.
_SIDES = ("top", "bottom"), ("left", "right")
_ROWS = 2**16  # Of a table that become text at once.
_PLACES, _PLACE = 5, 768  # A grid of places that may tell the diameter, and their side.
_CONTRAST = 0.5  # Of the place with most, from which a place counts.
_ASKED = 9  # Of the places that count, at most: each takes the time of a prediction.

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LargeResult:
    """Where the instances of a large image are.

    Attributes:
        labels: The label image: an OME-Zarr image of labels, or a tiled BigTIFF.
        table: The CSV or Parquet file with a row for each instance.
        count: How many instances there are.
        diameter: Of the objects, in pixels, as it was estimated or given; `None` from a model
            without one.
        halo: By how many pixels tiles overlap on each side.
        too_large: How many instances are longer than that, where the decoder of the model joins
            fragments, which may then stand by themselves; otherwise 0.
    """

    labels: Path
    table: Path
    count: int
    diameter: float | None
    halo: int
    too_large: int


def segment_large(
    image: Any,
    model: InstanceSegmenter | str | os.PathLike[str],
    out: str | os.PathLike[str],
    diameter: float | str = "auto",
    tile: int = 1024,
    channel: int | None = None,
    axes: str | None = None,
    client: Any = None,
    progress: Progress | None = None,
    table: str = "csv",
) -> LargeResult:
    """Segment an image of any size in bounded memory.

    The image is cut into tiles that overlap by a halo, as far as the network and a window of the
    grouping see. Percentiles and the diameter of the objects are those of the whole image, and
    tiles are resized on one grid, so a tile sees its objects as the whole image would show them. An
    object on a border is joined where its cells on both sides agree. Finished tiles are kept
    in `OUT.parts`: after a kill, the same call continues. The result appears under its name when it
    is whole. On Linux, the C library of this process returns freed memory at once from then on.

    Args:
        image: A path or an array, as `LargeImage` takes it, or a `LargeImage`.
        model: The model, or the name or folder of a preset, or a `.keras` file.
        out: Of the label image: `….tif` for a tiled BigTIFF, anything else for an OME-Zarr image of
            labels. The table of instances stands beside it, `….csv` or `….parquet`.
        diameter: Of the objects, √(4 area / π) in pixels; "auto" takes the median of at
            most nine of 25 places, which have at least half the contrast of the richest.
        tile: Side of what the network sees at once, about, from 64, in pixels of the image as it is
            resized for the network, and at most twice as many of the image. That is a tile, of
            whole windows of the grouping, and the halo around it.
        channel: As in `LargeImage`.
        axes: As in `LargeImage`.
        client: A `dask.distributed.Client`, whose workers read, segment and write the parts of
            the image; they must see the files by the same paths. Default: this process does, one
            after the other.
        progress: Is called with the number of tiles that are done, and of all.
        table: Format of the table of instances, "csv" or "parquet" (extra `tables`).

    Returns:
        Where the labels and the table are.

    Raises:
        ValueError: If an argument is not as above, or the parts beside `out` are those of another
            call.
        ImageFileError: If the image or a part of it cannot be read.
        ImportError: If the extra `large`, or `tables` for Parquet, is not installed.
        ConnectionError: If all workers of the client are lost.
        OSError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from keras_rpe.large import segment_large
        >>> rows, columns = np.mgrid[:200, :300] % 40 - 20
        >>> image = np.where(rows**2 + columns**2 < 150, 200, 20).astype("uint8")
        >>> folder = tempfile.mkdtemp()
        >>> found = segment_large(image, "nuclei", folder + "/labels.tif", tile=128)
        >>> found.labels.name, found.table.name
        ('labels.tif', 'labels.csv')
    """
    check_integer("tile", tile, 64, 2**15)
    check_choice("table", table, ("csv", "parquet"))
    if table == "parquet":
        optional_import("pyarrow.parquet", "tables")
    if diameter != "auto":
        check_number("diameter", diameter)
    large = image if isinstance(image, LargeImage) else LargeImage(image, channel, axes)
    if client is not None and isinstance(large.source, np.ndarray):
        raise ValueError(
            "`image` must be a path, a zarr or a dask array where a `client` has workers. "
            f"Received: an array of type {type(large.source).__name__}"
        )
    target = Path(out)
    folder = target.with_name(target.name + ".parts")
    listed = target.with_suffix(f".{table}")
    for path in (target, listed):
        # The table stands beside parts if the call was killed just before the labels followed.
        if path.exists() and not (path == listed and folder.exists()):
            raise ValueError(f"`out` and its table must not exist yet. Received: {path}")
    if target.suffix not in TIFF_ENDINGS:
        optional_import("zarr", "large")
    network = model if isinstance(model, InstanceSegmenter) else loaded_segmenter(os.fspath(model))
    if network.get_config()["coordinates"]:
        raise ValueError(
            "`model` must be made with coordinates=False: with them it must see an image whole."
        )
    known = network.object_size is not None
    if diameter != "auto" and not known:
        raise ValueError(
            "`diameter` must be 'auto' for a model made with find_diameter=False. "
            f"Received: diameter={diameter}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        "image": large.name,
        "shape": list(large.shape),
        "dtype": str(large.dtype),
        "model": _fingerprint(network),
        "diameter": diameter,
        "tile": tile,
    }
    before = _continued(folder, wanted)
    shared: str | InstanceSegmenter = network
    if client is not None and isinstance(model, InstanceSegmenter):
        shared = str((folder / "model.keras").resolve())
        network.save(shared)
    elif client is not None:
        shared = os.fspath(model)
    run = functools.partial(_run, client)
    found = before or _measured(large, network, diameter, tile, shared, run)
    write_file(folder / _SETTINGS, json.dumps({"wanted": wanted, "found": found}) + "\n")
    job = TileJob(large, shared, folder.resolve(), **found)
    _segment_tiles(job, run, progress)
    instances = join_tiles(job)
    sides = [instances[end] - instances[begin] for begin, end in _SIDES]
    too_large = int((np.maximum(*sides) > job.reach).sum()) if job.fragment else 0
    if too_large:
        warnings.warn(
            f"{too_large} instances are longer than the {job.reach} pixels by which tiles overlap, "
            "and fragments of them may stand by themselves: give a larger `diameter`.",
            stacklevel=2,
        )
    written = job.folder / target.name
    JoinedLabels(job).write(written, run)
    _write_table(folder / listed.name, instances)
    (folder / listed.name).replace(listed)
    written.replace(target)
    shutil.rmtree(folder)
    count = len(instances["instance"])
    return LargeResult(
        target, listed, count, found["diameter"] if known else None, job.reach, too_large
    )


def _fingerprint(model: InstanceSegmenter) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    config = {**model.get_config(), "decoder": model.decoder.get_config()}
    content = keras.saving.serialize_keras_object(config)
    digest.update(json.dumps(content, sort_keys=True).encode())
    return digest.hexdigest()


def _continued(folder: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier call with these settings has found out about the image."""
    path = folder / _SETTINGS
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before, found = content["wanted"], content["found"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: remove the folder to start anew.") from error
    differ = [name for name, value in wanted.items() if before.get(name) != value]
    if differ:
        shown = "; ".join(f"{name} {before.get(name)}, not {wanted[name]}" for name in differ)
        raise ValueError(
            f"{folder} holds the parts of another call, with {shown}: repeat that call, or remove "
            "the folder."
        )
    return dict(found)


def _measured(
    image: LargeImage,
    model: InstanceSegmenter,
    diameter: float | str,
    tile: int,
    shared: str | InstanceSegmenter,
    run: Run,
) -> dict[str, Any]:
    """What tiles must know of the whole image."""
    limits = [0.0, 1.0]
    if model.percentiles is not None:
        limits = image.percentiles(model.percentiles, run=run)
    trained = 0.0
    if model.object_size is not None:
        trained = float(np.exp2(float(model.object_size.log_diameter)))
        trained = trained if trained > 1.0 else 0.0
    number = trained or 1.0
    if diameter != "auto":
        number = float(diameter)
    elif trained:
        number = _estimated(image, shared, run)
    scale = 1.0 / model.pixel_step(number)
    cell, stride = model.output_stride, model.largest_stride
    decoder, seeds = model.decoder, model.seeded_mean_shift
    # What a window at the border shows of its neighbor must be as in the whole image, too.
    overlap = model.inference_window_overlap * cell if seeds else 0
    fragment = decoder.min_area if decoder.fragment_area is None else decoder.fragment_area
    sight = _sight(model) + overlap + (_DIAMETERS * trained if fragment else 0)
    halo = math.ceil(sight + _RIM * max(scale, 1.0))
    size = (seeds.window_size if seeds else model.inference_window_size) or _WINDOW
    cells = [math.ceil(math.ceil(n * scale) / stride) * stride // cell for n in image.shape]
    windows = [int(window_grid(n, size)[1]) for n in cells]
    # Memory is that of what the network sees, or that of the image where it is made much smaller.
    side = tile * min(1.0, _ENLARGED * scale) - 2 * halo
    # Windows are smaller in some images; their tiles see as much as those of the largest windows.
    count = max(round(side / (cell * size)), 1)
    seen = -(-(count * cell * size + 2 * halo + stride - 1) // stride) * stride
    return {
        "diameter": number,
        "scale": scale,
        "limits": limits,
        "windows": windows,
        "tile": [count * cell * n for n in windows],
        "halo": halo,
        "seen": seen,
        "strides": [cell, stride],
        "similarity": decoder.similarity_threshold,
        "least": decoder.min_area,
        "least_score": decoder.score_threshold,
        "fragment": fragment,
    }


def _sight(model: InstanceSegmenter) -> int:
    """How far the network sees, in pixels: how far from a change its outputs do not change."""
    random = np.random.default_rng(0)
    half = model.largest_stride * math.ceil(_FARTHEST / model.largest_stride)
    pair = random.random((2, 4 * model.largest_stride, 2 * half, 3), np.float32)
    pair[1, :, :half] = pair[0, :, :half]
    sight = 0
    for images, before in ((pair, slice(None)), (pair[:, :, ::-1], slice(None, None, -1))):
        for outputs in model.embed_normalized(keras.ops.convert_to_tensor(images.copy())):
            one, other = keras.ops.convert_to_numpy(outputs)
            step = 2 * half // one.shape[1]
            change = np.abs(one - other).max(axis=(0, 2))[before][: half // step]
            changed = np.flatnonzero(change > _SEEN)
            sight = max([sight, *(half - changed[:1] * step).tolist()])
    return sight


def _estimated(image: LargeImage, model: str | InstanceSegmenter, run: Run) -> float:
    """The median of the diameters in some of the places with much contrast."""
    rows, columns = (
        np.linspace(0, max(n - _PLACE, 0), min(-(-n // _PLACE), _PLACES), dtype=int).tolist()
        for n in image.shape
    )
    corners = itertools.product(rows, columns)
    found = sorted(run(functools.partial(corner_and_contrast, image, _PLACE), corners))
    least = _CONTRAST * max(contrast for _, contrast in found)
    rich = [corner for corner, contrast in found if contrast >= least]
    some = np.linspace(0, len(rich) - 1, min(len(rich), _ASKED), dtype=int)
    asked = functools.partial(part_diameter, image, model, _PLACE)
    return float(np.median(list(run(asked, [rich[k] for k in some]))))


def _segment_tiles(job: TileJob, run: Run, progress: Progress | None) -> None:
    tiles = list(itertools.product(*map(range, job.grid)))
    todo = [place for place in tiles if not job.file(place).exists()]
    done = len(tiles) - len(todo)
    if progress is not None:
        progress(done, len(tiles))
    for _ in run(functools.partial(segment_tile, job), todo):
        done += 1
        if progress is not None:
            progress(done, len(tiles))


def _run(client: Any, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results of a function of each item, by the workers of a dask client if there is one."""
    if client is None:
        yield from map(function, items)
        return
    distributed = optional_import("distributed", "large")
    futures = client.map(function, list(items), pure=False)
    try:
        for future in distributed.as_completed(futures):
            yield future.result()
    except (distributed.KilledWorker, CancelledError) as error:
        raise ConnectionError(
            "The workers of `client` have died: repeat the call with others, or with more memory "
            "for each. Finished tiles are kept."
        ) from error
    finally:
        client.cancel(futures)


def _write_table(path: Path, table: dict[str, np.ndarray]) -> None:
    if path.suffix == ".parquet":
        arrow = optional_import("pyarrow", "tables")
        optional_import("pyarrow.parquet", "tables").write_table(arrow.table(table), path)
        return
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        for begin in range(0, len(table["instance"]), _ROWS):
            columns = (values[begin : begin + _ROWS].tolist() for values in table.values())
            for row in zip(*columns):
                writer.writerow(f"{cell:.8g}" if isinstance(cell, float) else cell for cell in row)
