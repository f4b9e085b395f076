r"""Segment mosaics of nuclei that are larger and larger: time, memory, seams, workers, a peer.

    python benchmarks/large.py grow DSB2018 --runs 3
    python benchmarks/large.py seams DSB2018
    python benchmarks/large.py workers DSB2018
    python benchmarks/large.py peer DSB2018 --stardist runs/stardist_without_tnbc \
        --peer-python peers/bin/python

A mosaic is made of fluorescence images of the folder, side by side, turned and scaled at random; it
is read from a zarr, in `peer` from a `.npy`. `grow` segments mosaics in tiles of 1024, each in a
process of its own. Larger ones repeat the smallest, and all are seen at one diameter, which decides
how many pixels the network sees, so that they differ in size alone: seconds with all reading and
writing, those before and after the tiles, where the whole image is measured and its labels are put
together, and the peak of memory above that of the process with its model loaded and traced. `seams`
cuts mosaics at tiles, and counts the objects that the whole image shows in the same way, IoU at
least 0.99, at the same diameter. `workers` gives the tiles to one and to two dask workers, each of
one thread, which have seen a tile before, like the process that calls them. `peer` is StarDist's
`predict_instances_big` in blocks of 1024, in the environment that `benchmarks/stardist_nuclei.py`
describes; the diameter is found.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from turns import peak_memory

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
STARDIST = Path(__file__).with_name("stardist_nuclei.py")
TILE = 1024
ROW = 200, 400  # Height of a row of images, at least and at most.
ZOOM = 0.5  # Octaves, up and down.


def mosaic(folder: Path, side: int, seed: int) -> np.ndarray:
    """A gray image `(side, side)`, uint8."""
    from skimage.transform import rescale
    from train_nuclei import is_fluorescence

    from keras_rpe.data import label_folder
    from keras_rpe.results import rgb_array

    random = np.random.default_rng(seed)
    images, kept = label_folder(folder), {}
    canvas, top = np.zeros((side, side), np.uint8), 0
    while top < side:
        bottom, left = min(top + int(random.integers(*ROW)), side), 0
        while left < side:
            k = int(random.integers(len(images)))
            if k not in kept:
                image = images[k].image
                kept[k] = rgb_array(image).mean(axis=-1) if is_fluorescence(image) else None
            zoom, turns = 2 ** random.uniform(-ZOOM, ZOOM), int(random.integers(4))
            if kept[k] is None:
                continue
            part = np.rot90(rescale(kept[k], zoom, order=1), turns)
            part = np.clip(part[: bottom - top, : side - left], 0, 255)
            canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
            left += part.shape[1]
        top = bottom
    return canvas


@contextmanager
def stored(image: np.ndarray, ending: str) -> Iterator[Path]:
    """An image as a file, and a folder for what is found in it."""
    import zarr

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"image{ending}")
        if ending == ".zarr":
            zarr.create_array(path, data=image, chunks=(512, 512))
        else:
            np.save(path, image)
        yield path


def measured(command: list[object], **environment: str) -> dict[str, float]:
    """What a process prints as JSON in its last line."""
    done = subprocess.run(
        [str(part) for part in command],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )
    return json.loads(done.stdout.splitlines()[-1])


def ours(options: argparse.Namespace, path: Path, *more: object, **environment: str) -> dict:
    """Segment a file by this script in another process, as `keras-rpe segment` does."""
    command = [sys.executable, __file__, "run", path, "--preset", options.preset]
    return measured([*command, *more], TF_NUM_INTEROP_THREADS="1", **environment)


def run(options: argparse.Namespace) -> None:
    """Segment a file in tiles, and print the seconds and the memory."""
    from keras_rpe.large import segment_large
    from keras_rpe.large.tiles import loaded_segmenter

    out = Path(tempfile.mkdtemp(dir=options.image.parent), "labels.zarr")
    times: list[float] = []

    def progress(*_: int) -> None:
        times.append(time.perf_counter())

    warm_up(options.preset)
    if options.workers:
        from distributed import Client

        with Client(n_workers=options.workers, threads_per_worker=1, dashboard_address=None) as one:
            one.run(warm_up, options.preset)
            start = time.perf_counter()
            found = segment_large(
                options.image, options.preset, out, tile=TILE, client=one, progress=progress
            )
            end = time.perf_counter()  # Not with the time in which the workers stop.
    else:
        model = loaded_segmenter(options.preset)
        idle, start = peak_memory(), time.perf_counter()
        found = segment_large(
            options.image, model, out, options.diameter or "auto", TILE, progress=progress
        )
        end = time.perf_counter()
    result = {
        "seconds": end - start,
        "first": times[0] - start,
        "last": end - times[-1],
        "gigabytes": 0.0 if options.workers else (peak_memory() - idle) / 2**20,
        "instances": found.count,
    }
    print(json.dumps(result))


def warm_up(preset: str) -> None:
    """Segment a first tile with the model that this process keeps, which traces it."""
    from keras_rpe.large import segment_large
    from keras_rpe.large.tiles import loaded_segmenter

    model = loaded_segmenter(preset)
    with tempfile.TemporaryDirectory() as folder:
        segment_large(np.eye(256, dtype=np.uint8), model, Path(folder, "labels.tif"))


def grow(options: argparse.Namespace) -> None:
    """Print a row for each side."""
    smallest = mosaic(options.folder, min(options.sides), 0)
    print("pixels     instances  seconds  s/Mpixel  before, after the tiles  memory above idle, GB")
    for side in options.sides:
        times = -(-side // len(smallest))
        image = np.tile(smallest, (times, times))[:side, :side]
        runs = []
        for _ in range(options.runs):
            with stored(image, ".zarr") as path:
                runs.append(ours(options, path, "--diameter", options.diameter))
        found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        per_pixel = 1e6 / side**2
        print(
            f"{side:6d}²  {found['instances']:10.0f}  {found['seconds']:7.0f}  "
            f"{found['seconds'] * per_pixel:8.2f}  {found['first'] * per_pixel:10.2f}  "
            f"{found['last'] * per_pixel:10.2f}  {found['gigabytes']:21.3f}",
            flush=True,
        )


def seams(options: argparse.Namespace) -> None:
    """Print how many objects tiles and whole images show alike."""
    import tifffile

    from keras_rpe.large import segment_large
    from keras_rpe.metrics import matching
    from keras_rpe.models import InstanceSegmenter

    model = InstanceSegmenter.from_preset(options.preset)
    sides = np.random.default_rng(0).integers(*options.sides, options.count, endpoint=True)
    totals = np.zeros((len(options.tiles), 3), int)
    print("mosaic  diameter  tile   whole   tiles    same")
    for seed, side in enumerate(sides.tolist()):
        image = mosaic(options.folder, side, seed)
        # Some size that nuclei have, so that images are resized as they mostly are.
        diameter = 20 * 2 ** np.random.default_rng(seed).uniform(-ZOOM, ZOOM)
        whole = model.predict_instances(image, diameter).labels
        for k, tile in enumerate(options.tiles):
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder, "labels.tif")
                segment_large(image, model, target, diameter, tile)
                labels = tifffile.imread(target)
            (figures,) = matching(whole, labels, [0.99])
            row = figures.n_true, figures.n_pred, figures.tp
            totals[k] += row
            columns = "  ".join(f"{n:6d}" for n in row)
            print(f"{side:5d}²  {diameter:8.1f}  {tile:4d}  {columns}", flush=True)
    for tile, (true, predicted, same) in zip(options.tiles, totals):
        print(
            f"all, tiles of {tile}: {same} of {true} objects of the whole images are the same, "
            f"{same / true:.2%}, and of {predicted} in tiles, {same / predicted:.2%}"
        )


def workers(options: argparse.Namespace) -> None:
    """Print the seconds of one and of two workers."""
    one_thread = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    with stored(mosaic(options.folder, options.side, 0), ".zarr") as path:
        seconds = []
        for count in (1, 2, 1, 2):
            found = ours(options, path, "--workers", count, **one_thread)
            seconds.append(found["seconds"])
            print(f"{count} workers: {seconds[-1]:.0f} s", flush=True)
    print(f"two are {sum(seconds[::2]) / sum(seconds[1::2]):.2f} times as fast")


def peer(options: argparse.Namespace) -> None:
    """Print seconds and memory of this package and of StarDist."""
    print("method      instances  seconds  memory above idle, GB")
    with stored(mosaic(options.folder, options.side, 0), ".npy") as path:
        theirs = [options.peer_python, STARDIST, "big", path, "--model", options.stardist]
        for name, command in (("keras_rpe", None), ("StarDist", theirs)):
            found = measured(command) if command else ours(options, path)
            print(
                f"{name:10}  {found['instances']:9d}  {found['seconds']:7.1f}  "
                f"{found['gigabytes']:8.2f}",
                flush=True,
            )


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for command in (grow, seams, workers, peer, run):
        one = commands.add_parser(command.__name__, help=command.__doc__)
        one.set_defaults(run=command)
        one.add_argument("--preset", default="nuclei", help="its name, or its folder")
        one.add_argument("image" if command is run else "folder", type=Path)
        if command is grow:
            one.add_argument("--sides", type=int, nargs="+", default=[4096, 8192, 16384])
            one.add_argument("--diameter", type=float, default=28.0, help="in pixels")
            one.add_argument("--runs", type=int, default=1, help="of which medians are shown")
        elif command is seams:
            one.add_argument("--count", type=int, default=20, help="of mosaics")
            one.add_argument("--sides", type=int, nargs=2, default=[2000, 4000])
            one.add_argument("--tiles", type=int, nargs="+", default=[512, 1024])
        elif command is run:
            one.add_argument("--workers", type=int, default=0)
            one.add_argument("--diameter", type=float)
        else:
            one.add_argument("--side", type=int, default=4096)
        if command is peer:
            one.add_argument("--stardist", type=Path, required=True, help="a trained one")
            one.add_argument("--peer-python", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options.run(options)


if __name__ == "__main__":
    main()
