"""Compare accuracy and speed with peers, on nuclei in images that no method was trained on.

    python benchmarks/nuclei.py FOLDER --peer-python peers/bin/python --stardist runs/stardist

The images are those that `examples/train_nuclei.py` holds out, listed in `benchmarks/held_out`;
`benchmarks/stardist_nuclei.py` describes how to create the environment `peers` and how to train
StarDist on the others. Without the two options, only the baseline is compared: Otsu's threshold,
split by a watershed of the distance to the background. One scorer matches all methods, with counts
pooled over the images of a group. Seconds are the median over the images, from stored pixels to
labels, after the first image of each size. The second table is measured in turns, on the same
images tiled or cut to squares.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from turns import answer_turns, peak_memory, take_turns

if TYPE_CHECKING:
    from keras_rpe.data import LabelledImages

GROUPS = ("fluorescence", "stained")
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


def load(preset: str) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """A function from pixels to a label map, and the number of parameters."""
    from keras_rpe.models import InstanceSegmenter

    model = InstanceSegmenter.from_preset(preset)
    return lambda image: model.predict_instances(image).labels, model.count_params()


def segment_all(
    segment: Callable[[np.ndarray], np.ndarray], images: list[np.ndarray], runs: int
) -> Result:
    """Segment every image, and take the median time of its runs."""
    result, shapes = Result([], []), set()
    for image in images:
        if image.shape not in shapes:
            segment(image)
            shapes.add(image.shape)
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            labels = segment(image)
            times.append(time.perf_counter() - start)
        result.labels.append(labels)
        result.seconds.append(statistics.median(times))
    return result


def run_stardist(options: argparse.Namespace, names: Sequence[str]) -> Result:
    """Let the Python of the environment `peers` segment images of the folder."""
    from keras_rpe.data import read_labels

    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "names.txt"
        listed.write_text("\n".join(names))
        arguments = [options.peer_python, STARDIST, "predict", options.folder, "--names", listed]
        arguments += ["--model", options.stardist, "--out", folder, "--runs", str(options.runs)]
        subprocess.run([*arguments, *cores(options)], check=True, stdout=subprocess.DEVNULL)
        report = json.loads((Path(folder) / "report.json").read_text())
        labels = [read_labels(Path(folder) / f"{name}.png") for name in names]
    return Result(labels, [report["seconds"][name] for name in names], report["parameters"])


def cores(options: argparse.Namespace) -> list[str]:
    """The option of threads, to pass on."""
    return ["--cores", str(options.cores)] if options.cores else []


def print_group(group: str, truth: list[np.ndarray], results: dict[str, Result]) -> None:
    """Print a row for each method."""
    from keras_rpe.metrics import matching_dataset

    instances = sum(len(np.unique(labels[labels > 0])) for labels in truth)
    print(f"\n{len(truth)} {group} images, {instances} instances")
    columns = "".join(f"  AP{100 * threshold:.0f}" for threshold in THRESHOLDS)
    print(f"method           {columns}    PQ50   seconds  parameters")
    for method, result in results.items():
        matched = matching_dataset(truth, result.labels, THRESHOLDS)
        figures = "".join(f" {m.average_precision:5.3f}" for m in matched)
        print(
            f"{method:17s}{figures} {matched[0].panoptic_quality:7.3f} "
            f"{statistics.median(result.seconds):9.3f} {result.parameters or '-':>11}",
            flush=True,
        )


def compare_accuracy(options: argparse.Namespace, found: LabelledImages) -> None:
    """Print a table for each group of images."""
    segment, parameters = load(options.preset)
    for group in GROUPS:
        part = found.subset(read_list(options.lists, group))
        images = [one.image for one in part]
        results = {options.preset_name: segment_all(segment, images, options.runs)}
        results[options.preset_name].parameters = parameters
        if options.stardist:
            results["StarDist"] = run_stardist(options, part.names)
        results["Otsu + watershed"] = segment_all(otsu_watershed, images, options.runs)
        print_group(group, [one.instances for one in part], results)


def compare_speed(options: argparse.Namespace, found: LabelledImages) -> None:
    """Print the seconds of an image, for methods that take turns."""
    from keras_rpe.results import rgb_array

    names = [name for group in GROUPS for name in read_list(options.lists, group)]
    names = names[:: max(1, len(names) // options.images)][: options.images]
    pixels = [rgb_array(one.image) for one in found.subset(names)]
    print(f"\n{len(names)} images a turn, median of {options.turns} turns; the ratio is to")
    print(f"{options.preset_name}, the median of the ratios of neighboring turns")
    print("size   method             seconds   ratio")
    for side in options.sides:
        with tempfile.TemporaryDirectory() as folder:
            squares = Path(folder) / "images.npy"
            np.save(squares, np.stack([square(image, side) for image in pixels]))
            common = [str(squares), "--runs", str(options.turns), *cores(options)]
            ours = [__file__, *common, "--preset", options.preset, "--answer"]
            peer = [str(path) for path in (options.peer_python, STARDIST)]
            peer += ["turns", *common, "--model", str(options.stardist)]
            commands = {options.preset_name: ours, "StarDist": ["-c", BECOME, *peer]}
            results = take_turns(commands, options.turns)
        first = [run["seconds"] for run in results[options.preset_name]]
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
    images = np.load(options.folder, allow_pickle=False)
    segment, _ = load(options.preset)
    segment(images[0])
    answer_turns(lambda: [segment(image) for image in images], options.runs, peak_memory())


def read_list(lists: Path, group: str) -> list[str]:
    """The names of the images of a group that are held out."""
    return (lists / f"validation_{group}.txt").read_text(encoding="utf-8").split()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--lists",
        type=Path,
        default=Path(__file__).with_name("held_out"),
        help="folder of validation_GROUP.txt",
    )
    parser.add_argument("--preset", default="nuclei", help="its name, or its folder")
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--stardist", type=Path, help="what `stardist_nuclei.py train` wrote")
    parser.add_argument("--cores", type=int, help="threads; default: what TensorFlow takes")
    parser.add_argument("--runs", type=int, default=1, help="of each image in the first tables")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--images", type=int, default=4, help="of a turn")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.cores:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(options.cores)
        tf.config.threading.set_inter_op_parallelism_threads(options.cores)
    if options.answer:
        answer(options)
        return
    if (options.peer_python is None) != (options.stardist is None):
        parser.error("--peer-python and --stardist come together")
    for path in (options.peer_python, options.stardist):
        if path is not None and not path.exists():
            parser.error(f"there is no {path}")

    from keras_rpe.data import label_folder

    options.preset_name = f"preset {Path(options.preset).name}"
    found = label_folder(options.folder)
    compare_accuracy(options, found)
    if options.stardist:
        compare_speed(options, found)


if __name__ == "__main__":
    main()
