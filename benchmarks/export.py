"""Compare exported models with the Keras model: latency, memory, size, agreement.

    python benchmarks/export.py --dense DSB2018 KROMP BITDEPTH TNBC

It exports a preset to every format, then segments one microscope image, which comes with
scikit-image, at several sizes. Every method runs in a separate process; the methods take turns, and
the times are medians. Memory is the peak of the process above its memory when idle, after an image
of 64×64 pixels. Agreement is the mean IoU of each instance of the Keras model with its match, or 0
without a match. With `--dense`, each file also segments the images with the most instances of some
folders of `images` and `instances`, cut to 512×512.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from turns import answer_turns, peak_memory, take_turns

THREADS = 2
DENSE = 10
KERAS = ("eager", "predict", "predict_instances")
FILES = {
    "SavedModel": ("nuclei", {}),
    "LiteRT float32": ("float32.tflite", {"format": "litert"}),
    "LiteRT float16": ("float16.tflite", {"format": "litert", "quantize": "float16"}),
    "LiteRT dynamic int8": ("dynamic.tflite", {"format": "litert", "quantize": "dynamic"}),
    "LiteRT static int8": ("int8.tflite", {"format": "litert", "quantize": "int8"}),
    "ONNX": ("model.onnx", {"format": "onnx"}),
}


def image_of(side: int) -> np.ndarray:
    """The stain of nuclei in a section of colon, uint8 `(side, side, 3)`."""
    from keras_rpe_cli.demo import demo_image

    stain = np.tile(demo_image(), (side // 512 + 1, side // 512 + 1))
    return np.repeat(stain[:side, :side, None], 3, axis=-1)


def dense_images(folders: list[Path]) -> list[np.ndarray]:
    """The middle of the images with the most instances, uint8 `(512, 512, 3)`, of all folders."""
    from keras_rpe.data import label_folder
    from keras_rpe.results import rgb_array

    found = []
    for folder in folders:
        middles = []
        for one in label_folder(folder):
            top, left = ((side - 512) // 2 for side in one.instances.shape)
            if min(top, left) >= 0 and one.image.dtype == np.uint8:
                middle = np.s_[top : top + 512, left : left + 512]
                count = len(np.unique(one.instances[middle]))
                middles.append((count, rgb_array(one.image[middle]).astype("uint8")))
        found += sorted(middles, key=lambda pair: -pair[0])[: -(-DENSE // len(folders))]
    return [image for _, image in sorted(found, key=lambda pair: -pair[0])[:DENSE]]


def print_agreement(preset: str, folder: Path, images: list[np.ndarray]) -> None:
    """Print how each file agrees with the Keras model on images."""
    from keras_rpe.metrics import matching_dataset

    segment = load("predict_instances", preset, folder)
    expected = [segment(image) for image in images]
    instances = sum(int(labels.max()) for labels in expected)
    print(f"\n{len(images)} dense images of 512², {instances} instances")
    for method in FILES:
        served = load(method, preset, folder)
        pair = matching_dataset(expected, [served(image) for image in images], (0.5,))[0]
        print(f"{method:20s} {pair.mean_true_iou:10.4f}", flush=True)


def export_all(preset: str, folder: Path) -> None:
    """Write the preset in every format."""
    from keras_rpe.models import InstanceSegmenter

    model = InstanceSegmenter.from_preset(preset)
    for file, options in FILES.values():
        if options.get("quantize") == "int8":
            whole = image_of(512)
            options = {**options, "representative_data": [whole[:256, 256:], whole[256:, :256]]}
        model.export(folder / file, **options)


def load(method: str, preset: str, folder: Path):
    """A function from an image to its label map."""
    if method not in KERAS:
        from keras_rpe.export import load_served

        threads = {} if method == "SavedModel" else {"num_threads": THREADS}
        served = load_served(folder / FILES[method][0], **threads)
        return lambda image: served.predict_instances(image).labels
    from keras_rpe.models import InstanceSegmenter

    model = InstanceSegmenter.from_preset(preset)
    if method == "predict_instances":
        return lambda image: model.predict_instances(image).labels
    if method == "predict":
        return lambda image: model.predict(image[None], verbose=0)["labels"][0]
    return lambda image: np.asarray(model.serve(image[None].astype("float32"))["labels"])[0]


def measure(method: str, preset: str, folder: Path, side: int, runs: int) -> None:
    """Print the time and the peak memory of each run as JSON, one line per run."""
    segment = load(method, preset, folder)
    segment(image_of(64))  # Threads are started, graphs traced and libraries loaded.
    image = image_of(side)
    idle = peak_memory()
    np.save(folder / f"{method}.npy", segment(image))
    answer_turns(lambda: segment(image), runs, idle)


def compare(methods: list[str], preset: str, folder: Path, side: int, runs: int) -> dict[str, list]:
    """Run the methods in turn and collect what they print."""
    case = [__file__, "--preset", preset, "--folder", str(folder)]
    case += ["--sides", str(side), "--runs", str(runs)]
    return take_turns({method: [*case, "--method", method] for method in methods}, runs)


def print_rows(results: dict[str, list], folder: Path, side: int) -> None:
    """Print a row for each method."""
    from keras_rpe.metrics import matching

    reference = np.load(folder / "predict_instances.npy")
    for method, values in results.items():
        seconds = statistics.median(run["seconds"] for run in values)
        megabytes = max(run["megabytes"] for run in values)
        ratio = statistics.median(
            run["seconds"] / other["seconds"]
            for run, other in zip(values, results["predict_instances"])
        )
        pair = matching(reference, np.load(folder / f"{method}.npy"), 0.5)
        size = "-" if method in KERAS else f"{_size(folder / FILES[method][0]) / 1e6:.2f}"
        print(
            f"{side:4d}²  {method:20s} {seconds:8.3f} {ratio:7.2f} {megabytes:8.0f} {size:>8s} "
            f"{pair.mean_true_iou:10.4f}",
            flush=True,
        )


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="nuclei")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--dense", type=Path, nargs="+", default=[], help="folders of images")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        side = options.sides[0]
        measure(options.method, options.preset, options.folder, side, options.runs)
        return
    with tempfile.TemporaryDirectory() as folder:
        export_all(options.preset, Path(folder))
        print(f"preset {options.preset}, median of {options.runs} runs in turn; the ratio is to")
        print("predict_instances, the median of the ratios of neighboring runs")
        print("size   method                  seconds   ratio       MB  file MB  agreement")
        for side in options.sides:
            methods = [*KERAS, *FILES]
            results = compare(methods, options.preset, Path(folder), side, options.runs)
            print_rows(results, Path(folder), side)
        if options.dense:
            print_agreement(options.preset, Path(folder), dense_images(options.dense))


if __name__ == "__main__":
    main()
