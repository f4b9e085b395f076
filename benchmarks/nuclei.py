r"""Compare accuracy and speed with peers, on nuclei in images that no method was trained on.

    python benchmarks/nuclei.py left-out DSB2018 KROMP BITDEPTH TNBC --runs runs \
        --peer-python peers/bin/python
    python benchmarks/nuclei.py held-out DSB2018
    python benchmarks/nuclei.py speed DSB2018 --stardist runs/stardist_without_tnbc \
        --peer-python peers/bin/python

`left-out` measures each folder with a preset that was trained on the others,
`RUNS/nuclei_without_FOLDER/preset`, from

    python examples/train_nuclei.py DSB2018 KROMP BITDEPTH TNBC --leave-out KROMP --minutes 22 \
        --out runs/nuclei_without_kromp

and with StarDist, `RUNS/stardist_without_FOLDER`; `benchmarks/stardist_nuclei.py` describes how to
create the environment `peers` and how to train it. Without `--peer-python`, only the baseline is
compared: Otsu's threshold, split by a watershed of the distance to the background. The preset is
also given the true median diameter of each image, to see what estimating it costs. `held-out`
measures a preset on images of folders that it was trained on, as `benchmarks/held_out` lists them.
One scorer matches all methods, with counts pooled over the images. Seconds are the median over the
images, from stored pixels to labels, after the first image of each size; those of `speed` are
measured in turns, on the same images tiled or cut to squares.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from turns import answer_turns, peak_memory, take_turns

if TYPE_CHECKING:
    from keras_rpe.data import LabelledImages

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
STARDIST = Path(__file__).with_name("stardist_nuclei.py")
# The second and third are the values of a grid with the best AP at IoU 0.5 on 81 training images.
BLUR, DISTANCE_BLUR, PEAK_DISTANCE, SMALLEST = 1, 2, 5, 20
# Replaces the process by another Python, with the same pipes.
BECOME = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"


@dataclass
class Result:
    """What a method found in the images of a group."""

    labels: list[np.ndarray]
    seconds: list[float]
    parameters: int = 0


def otsu_watershed(image: np.ndarray) -> np.ndarray:
    """Label pixels brighter than Otsu's threshold, or darker ones on a bright background."""
    from scipy.ndimage import binary_fill_holes, distance_transform_edt
    from skimage.feature import peak_local_max
    from skimage.filters import gaussian, threshold_otsu
    from skimage.measure import label
    from skimage.segmentation import watershed

    gray = image[..., :3].mean(axis=-1) if image.ndim == 3 else image.astype(float)
    if np.median(gray) > (gray.min() + gray.max()) / 2:
        gray = -gray
    if gray.min() == gray.max():
        return np.zeros(gray.shape, np.int32)
    gray = gaussian(gray, BLUR)
    nuclei = binary_fill_holes(gray > threshold_otsu(gray))
    distance = gaussian(distance_transform_edt(nuclei), DISTANCE_BLUR)
    peaks = peak_local_max(
        distance, min_distance=PEAK_DISTANCE, labels=label(nuclei), exclude_border=False
    )
    markers = np.zeros(gray.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, markers, mask=nuclei).astype(np.int32)
    return np.where(np.bincount(labels.ravel())[labels] >= SMALLEST, labels, 0)


def load(preset: str) -> Any:
    """The model of a preset, by its name or folder."""
    from keras_rpe.models import InstanceSegmenter

    return InstanceSegmenter.from_preset(preset)


def segment_all(segment: Callable[[np.ndarray], np.ndarray], images: list[np.ndarray]) -> Result:
    """Segment every image, and take the time."""
    result, shapes = Result([], []), set()
    for image in images:
        if image.shape not in shapes:
            segment(image)
            shapes.add(image.shape)
        start = time.perf_counter()
        result.labels.append(segment(image))
        result.seconds.append(time.perf_counter() - start)
    return result


def run_stardist(
    options: argparse.Namespace, folder: Path, model: Path, names: Sequence[str]
) -> Result:
    """Let the Python of the environment `peers` segment images of a folder."""
    from keras_rpe.data import read_labels

    with tempfile.TemporaryDirectory() as out:
        listed = Path(out) / "names.txt"
        listed.write_text("\n".join(names))
        arguments = [options.peer_python, STARDIST, "predict", folder, "--names", listed]
        arguments += ["--model", model, "--out", out]
        subprocess.run([*arguments, *cores(options)], check=True, stdout=subprocess.DEVNULL)
        report = json.loads((Path(out) / "report.json").read_text())
        labels = [read_labels(Path(out) / f"{name}.png") for name in names]
    return Result(labels, [report["seconds"][name] for name in names], report["parameters"])


def cores(options: argparse.Namespace) -> list[str]:
    """The option of threads, to pass on."""
    return ["--cores", str(options.cores)] if options.cores else []


def print_group(title: str, truth: list[np.ndarray], results: dict[str, Result]) -> None:
    """Print a row for each method."""
    from keras_rpe.metrics import matching_dataset

    instances = sum(len(np.unique(labels[labels > 0])) for labels in truth)
    print(f"\n{title}: {len(truth)} images, {instances} nuclei")
    columns = "".join(f"  AP{100 * threshold:.0f}" for threshold in THRESHOLDS)
    print(f"method              {columns}    PQ50   seconds  parameters")
    for method, result in results.items():
        matched = matching_dataset(truth, result.labels, THRESHOLDS)
        figures = "".join(f" {m.average_precision:5.3f}" for m in matched)
        print(
            f"{method:20s}{figures} {matched[0].panoptic_quality:7.3f} "
            f"{statistics.median(result.seconds):9.3f} {result.parameters or '-':>11}",
            flush=True,
        )


def groups_of(images: LabelledImages) -> dict[str, LabelledImages]:
    """Fluorescence and other images apart, without those that show no nucleus."""
    from train_nuclei import is_fluorescence

    there = [(name, one) for name, one in zip(images.names, images) if one.instances.any()]
    kinds = {name: is_fluorescence(one.image) for name, one in there}
    found = {
        "fluorescence": [name for name, dark in kinds.items() if dark],
        "stained": [name for name, dark in kinds.items() if not dark],
    }
    return {kind: images.subset(names) for kind, names in found.items() if names}


def median_diameter(labels: np.ndarray) -> float:
    """The median of √(4 area / π) over the instances."""
    areas = np.bincount(labels[labels > 0])
    return float(np.median(np.sqrt(4 / np.pi * areas[areas > 0])))


def compare(
    title: str, images: LabelledImages, preset: str, peers: dict[str, Callable[..., Result]]
) -> None:
    """Print how a preset and its peers do on images, and how well the preset knows diameters."""
    model = load(preset)
    pixels, truth = [one.image for one in images], [one.instances for one in images]
    diameters = [median_diameter(labels) for labels in truth]

    def segment(image: np.ndarray, diameter: float | str = "auto") -> np.ndarray:
        return model.predict_instances(image, diameter).labels

    results = {"preset": segment_all(segment, pixels)}
    results["preset"].parameters = model.count_params()
    if model.takes_diameter:
        estimates = [model.predict_diameter(image) for image in pixels]
        off = np.abs(np.log2(np.array(estimates) / diameters))
        given = iter(diameters)
        labels = [segment(image, next(given)) for image in pixels]
        results["  true diameter"] = Result(labels, [0.0])
    for name, peer in peers.items():
        results[name] = peer(images)
    results["Otsu + watershed"] = segment_all(otsu_watershed, pixels)
    print_group(title, truth, results)
    if model.takes_diameter:
        print(f"diameter within 20 % in {np.mean(off < np.log2(1.2)):.0%} of the images")


def name_of(folder: Path) -> str:
    """What the folder is called in lists and runs."""
    return folder.parent.name if folder.name == "train" else folder.name


def left_out(options: argparse.Namespace) -> None:
    """Measure each folder with what was trained on the others."""
    from keras_rpe.data import label_folder

    for folder in options.folders:
        name = name_of(folder)
        model = options.runs / f"stardist_without_{name}"
        peers = {}
        if options.peer_python:
            peers["StarDist"] = lambda images, folder=folder, model=model: run_stardist(
                options, folder, model, images.names
            )
        preset = options.runs / f"nuclei_without_{name}" / "preset"
        for kind, images in groups_of(label_folder(folder)).items():
            compare(f"{name}, {kind}", images, str(preset), peers)


def held_out(options: argparse.Namespace) -> None:
    """Measure a preset on images of the folders that it was trained on."""
    from keras_rpe.data import label_folder

    for folder in options.folders:
        peers = {}
        if options.stardist:
            peers["StarDist"] = lambda images, folder=folder: run_stardist(
                options, folder, options.stardist, images.names
            )
        images = label_folder(folder).subset(listed(options.lists, name_of(folder)))
        for kind, group in groups_of(images).items():
            compare(f"{name_of(folder)}, {kind}", group, options.preset, peers)


def listed(lists: Path, name: str) -> list[str]:
    """The names of the images of a folder that are held out."""
    files = sorted(lists.glob(f"{name}*.txt"))
    return [one for file in files for one in file.read_text(encoding="utf-8").split()]


def speed(options: argparse.Namespace) -> None:
    """Print the seconds of an image, for methods that take turns."""
    from keras_rpe.data import label_folder
    from keras_rpe.results import rgb_array

    found = label_folder(options.folder)
    names = listed(options.lists, name_of(options.folder)) or list(found.names)
    names = names[:: max(1, len(names) // options.images)][: options.images]
    pixels = [rgb_array(one.image) for one in found.subset(names)]
    preset = f"preset {Path(options.preset).name}"
    print(f"\n{len(names)} images a turn, median of {options.turns} turns; the ratio is to")
    print(f"{preset}, the median of the ratios of neighboring turns")
    print("size   method             seconds   ratio")
    for side in options.sides:
        with tempfile.TemporaryDirectory() as folder:
            squares = Path(folder) / "images.npy"
            np.save(squares, np.stack([square(image, side) for image in pixels]))
            common = [str(squares), *cores(options)]
            ours = [__file__, "answer", *common, "--preset", options.preset]
            peer = [str(path) for path in (options.peer_python, STARDIST)]
            runs = ["--runs", str(options.turns)]
            ours += runs
            peer += ["turns", *common, *runs, "--model", str(options.stardist)]
            commands = {preset: ours, "StarDist": ["-c", BECOME, *peer]}
            results = take_turns(commands, options.turns)
        first = [run["seconds"] for run in results[preset]]
        for method, runs in results.items():
            seconds = [run["seconds"] for run in runs]
            ratio = statistics.median(a / b for a, b in zip(seconds, first))
            median = statistics.median(seconds) / len(names)
            print(f"{side:4d}²  {method:16s} {median:9.3f} {ratio:7.2f}", flush=True)


def square(image: np.ndarray, side: int) -> np.ndarray:
    """The image repeated and cut to `(side, side, 3)`."""
    times = [-(-side // length) for length in image.shape[:2]]
    return np.tile(image, (*times, 1))[:side, :side]


def answer(options: argparse.Namespace) -> None:
    """Segment the images of a file `(N, H, W, 3)` once for each line on stdin."""
    images = np.load(options.images, allow_pickle=False)
    model = load(options.preset)
    model.predict_instances(images[0])
    answer_turns(
        lambda: [model.predict_instances(image) for image in images], options.runs, peak_memory()
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for run, name in ((left_out, "left-out"), (held_out, "held-out"), (speed, "speed")):
        one = commands.add_parser(name, help=run.__doc__)
        one.set_defaults(run=run)
        if run is speed:
            one.add_argument("folder", type=Path)
            one.add_argument("--turns", type=int, default=7)
            one.add_argument("--images", type=int, default=4, help="of a turn")
            one.add_argument("--sides", type=int, nargs="+", default=[256, 512])
        else:
            one.add_argument("folders", type=Path, nargs="+")
        if run is left_out:
            one.add_argument("--runs", type=Path, required=True, help="folder of what was trained")
        else:
            one.add_argument("--preset", default="nuclei", help="its name, or its folder")
            one.add_argument(
                "--lists",
                type=Path,
                default=Path(__file__).with_name("held_out"),
                help="folder of FOLDER*.txt",
            )
        if run is not left_out:
            one.add_argument("--stardist", type=Path, required=run is speed, help="a trained one")
        one.add_argument("--peer-python", type=Path, required=run is speed)
        one.add_argument("--cores", type=int, help="threads; default: what TensorFlow takes")
    one = commands.add_parser("answer")
    one.set_defaults(run=answer, peer_python=None)
    one.add_argument("images", type=Path)
    one.add_argument("--preset")
    one.add_argument("--runs", type=int)
    one.add_argument("--cores", type=int)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.cores:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(options.cores)
        tf.config.threading.set_inter_op_parallelism_threads(options.cores)
    options.run(options)


if __name__ == "__main__":
    main()
