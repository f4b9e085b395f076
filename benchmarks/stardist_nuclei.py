"""Train or run StarDist, for `benchmarks/nuclei.py` and `benchmarks/large.py`.

StarDist needs a separate virtual environment, without Keras 3 and without this project:

    python3.11 -m venv peers
    peers/bin/pip install stardist==0.9.2 tensorflow==2.15.1 "numpy<2"
    peers/bin/python benchmarks/stardist_nuclei.py train DSB2018 KROMP BITDEPTH \
        --skip runs/nuclei_without_tnbc --minutes 22 --out runs/stardist_without_tnbc

Each folder holds `images` and `instances` with label images of the same names; images listed in
`SKIP/FOLDER.txt`, as `examples/train_nuclei.py` writes them, are not trained on. The network, its
losses and its optimizer are those of StarDist's 2D training example: 32 rays on every second pixel.
So are flips, quarter turns and intensities; patches are also enlarged or reduced by up to two, as
nuclei of other microscopes differ in size. Images have three channels, which are equal if the
image is gray. Groups of images are shown as often as in `examples/train_nuclei.py`. Every tenth one
is not used for updates: the best epoch is chosen on its patches, and both thresholds are tuned on
it. The minutes count from the first update to the last, including the checks in between; the
learning rate stays at 3e-4 for 70 % of them and then falls to 1e-6. If it is killed, start the same
command again: training continues, and the minutes already spent count. To use one core of several,
put `taskset -c 0` in front.
"""

import argparse
import contextlib
import glob
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RATE, LAST_RATE, CONSTANT_SHARE = 3e-4, 1e-6, 0.7
SECONDS_BETWEEN_STATES = 120
ZOOM = 2.0


def learning_rate(share: float) -> float:
    """The learning rate when this share of the time has passed."""
    falling = min(max(share - CONSTANT_SHARE, 0) / (1 - CONSTANT_SHARE), 1)
    return LAST_RATE + (RATE - LAST_RATE) * (1 + math.cos(math.pi * falling)) / 2


def read_names(path: Path) -> list[str]:
    """The image names that a text file lists."""
    return path.read_text(encoding="utf-8").split()


def read_pixels(path: Path) -> np.ndarray:
    """One image as uint8 or uint16 `(H, W, 3)`."""
    from skimage.io import imread

    image = imread(path)
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image[..., :3]


def normalized(image: np.ndarray) -> np.ndarray:
    """Normalize to float32: 0 at percentile 1 and 1 at percentile 99.8 of all channels together."""
    from csbdeep.utils import normalize

    return normalize(image, 1, 99.8, axis=(0, 1, 2))


def file_of(folder: Path, name: str) -> Path:
    """The image of this name, whatever its format."""
    return next(folder.glob(f"{glob.escape(name)}.*"))


def read_training_pair(folder: Path, name: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A normalized image and its labels, both at least `side` high and wide."""
    from skimage.io import imread
    from stardist import fill_label_holes

    image = normalized(read_pixels(file_of(folder / "images", name)))
    labels = imread(file_of(folder / "instances", name)).astype(np.int32)
    labels = fill_label_holes(labels)
    missing = [(0, max(side - length, 0)) for length in labels.shape]
    return np.pad(image, [*missing, (0, 0)], mode="edge"), np.pad(labels, missing)


def training_names(folders: list[Path], skip: Path | None) -> list[tuple[Path, str]]:
    """The images of all folders but those that are listed."""
    found = []
    for folder in folders:
        listed = skip / f"{name_of(folder)}.txt" if skip else None
        left_out = set(read_names(listed)) if listed and listed.exists() else set()
        names = sorted(file.stem for file in (folder / "instances").iterdir())
        found += [(folder, name) for name in names if name not in left_out]
    return found


def is_fluorescence(image: np.ndarray) -> bool:
    """Whether an image is gray with a dark background, as fluorescence images are."""
    gray = image.mean(axis=-1)
    colorless = np.abs(image - gray[..., None]).max() <= 2
    return bool(colorless and np.median(gray) < 0.5 * gray.max() and gray.mean() < 100)


def balanced(pairs: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Repeat images so that a group has the weight of the root of its size.

    The fluorescence images of a folder are a group, and the others are.
    """
    groups: dict[tuple[Path, bool], list] = {}
    for folder, name in pairs:
        dark = is_fluorescence(read_pixels(file_of(folder / "images", name)))
        groups.setdefault((folder, dark), []).append((folder, name))
    largest = max(map(len, groups.values()))
    return [
        pair
        for group in groups.values()
        for pair in group * max(round(math.sqrt(largest / len(group))), 1)
    ]


def name_of(folder: Path) -> str:
    """What the folder is called in lists."""
    return folder.parent.name if folder.name == "train" else folder.name


def augmented(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn, flip and zoom an image with its labels, change its contrast and add noise."""
    random = np.random
    image, labels = zoomed(image, labels, ZOOM ** random.uniform(-1, 1))
    turns, flip = random.randint(4), random.randint(2)
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if flip:
        image, labels = image[:, ::-1], labels[:, ::-1]
    image = image * random.uniform(0.6, 2) + random.uniform(-0.2, 0.2)
    image = image + 0.02 * random.uniform() * random.normal(size=image.shape)
    return image.astype(np.float32), labels


def zoomed(image: np.ndarray, labels: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """The middle of a patch at another scale, and of the same size; its mirror images go on."""
    from scipy.ndimage import map_coordinates

    side = labels.shape[0]
    place = (np.arange(side) - (side - 1) / 2) / factor + (side - 1) / 2
    grid = np.stack(np.meshgrid(place, place, indexing="ij"))
    channels = [
        map_coordinates(image[..., c], grid, order=1, mode="mirror") for c in range(image.shape[2])
    ]
    return np.stack(channels, -1), map_coordinates(labels, grid, order=0, mode="mirror")


def clock(seconds: float, network, best, folder: Path):
    """A Keras callback that ends training after a given time, and restores a state in the folder.

    Args:
        seconds: How long training takes.
        network: The compiled Keras model.
        best: The callback that writes the best weights.
        folder: The folder of the state.

    Returns:
        The callback. Its `passed` is the number of seconds so far.
    """
    import tensorflow as tf

    class Clock(tf.keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.progress = tf.Variable([0.0, 0.0, math.inf], dtype=tf.float64)
            network.optimizer.build(network.trainable_variables)
            state = tf.train.Checkpoint(
                network=network, optimizer=network.optimizer, progress=self.progress
            )
            self.states = tf.train.CheckpointManager(state, folder / "state", max_to_keep=2)
            self.states.restore_or_initialize()
            before, updates, best.best = self.progress.numpy()
            self.before, self.updates = before, int(updates)
            self.start: float | None = None

        @property
        def passed(self) -> float:
            return self.before + (time.monotonic() - self.start if self.start else 0)

        def on_train_batch_begin(self, batch, logs=None) -> None:
            if self.start is None:
                self.start = self.saved = time.monotonic()
            network.optimizer.learning_rate.assign(learning_rate(self.passed / seconds))

        def on_train_batch_end(self, batch, logs=None) -> None:
            self.updates += 1
            if self.passed >= seconds:
                network.stop_training = True
            elif time.monotonic() - self.saved > SECONDS_BETWEEN_STATES:
                self.save()

        def on_epoch_end(self, epoch, logs=None) -> None:
            self.save()
            print(
                f"{self.passed / 60:.1f} of {seconds / 60:g} minutes, {self.updates} updates, "
                f"rate {float(network.optimizer.learning_rate):.1e}, loss {logs['loss']:.4f}, "
                f"held out {logs['val_loss']:.4f}, best {best.best:.4f}",
                flush=True,
            )

        def save(self) -> None:
            self.progress.assign([self.passed, self.updates, best.best])
            self.states.save()
            self.saved = time.monotonic()

    return Clock()


def train(options: argparse.Namespace) -> None:
    """Train StarDist and tune its thresholds."""
    import tensorflow as tf
    from stardist.models import Config2D, StarDist2D

    # StarDist asks Keras for a progress bar that would fill a log file.
    tf.keras.utils.disable_interactive_logging()
    start = time.monotonic()
    found = training_names(options.folders, options.skip)
    read = {pair: read_training_pair(*pair, options.patch) for pair in found}
    held_out = [read[pair] for pair in found[::10]]
    updating = [read[pair] for pair in balanced([one for i, one in enumerate(found) if i % 10])]
    print(
        f"{len(updating)} images for updates, {len(held_out)} held out of them, "
        f"read in {time.monotonic() - start:.0f} s",
        flush=True,
    )
    config = Config2D(
        axes="YXC",
        n_rays=32,
        n_channel_in=3,
        grid=(2, 2),
        train_patch_size=(options.patch, options.patch),
        train_batch_size=4,
        train_learning_rate=RATE,
        train_reduce_lr=None,
        train_tensorboard=False,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model = StarDist2D(config, name=options.out.name, basedir=str(options.out.parent))
    model.prepare_for_training()
    best = next(callback for callback in model.callbacks if callback.save_best_only)
    timer = clock(60 * options.minutes, model.keras_model, best, options.out)
    if timer.passed < 60 * options.minutes:
        model.callbacks.append(timer)
        # Another seed after a restart, so the patches do not repeat.
        model.train(
            *(list(column) for column in zip(*updating)),
            validation_data=tuple(list(column) for column in zip(*held_out)),
            augmenter=augmented,
            seed=timer.updates,
            epochs=10**6,
            steps_per_epoch=options.epoch_steps,
        )
    else:
        model.load_weights("weights_best.h5")
    start, passed = time.monotonic(), timer.passed
    images, labels = (list(column) for column in zip(*held_out))
    thresholds = model.optimize_thresholds(images, labels, optimize_kwargs={"verbose": 0})
    print(
        f"{passed / 60:.1f} minutes, {timer.updates} updates, "
        f"{model.keras_model.count_params()} parameters, thresholds {thresholds} "
        f"in {time.monotonic() - start:.0f} s"
    )


def load(folder: Path) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """A function from pixels to a label map, and the number of parameters."""
    from stardist.models import StarDist2D

    model = StarDist2D(None, name=folder.name, basedir=str(folder.parent))

    def segment(image: np.ndarray) -> np.ndarray:
        return model.predict_instances(normalized(image))[0]

    return segment, model.keras_model.count_params()


def predict(options: argparse.Namespace) -> None:
    """Write a label image for each image, and the seconds and parameters into `report.json`."""
    from skimage.io import imsave

    segment, parameters = load(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    seconds, shapes = {}, set()
    for name in read_names(options.names):
        image = read_pixels(file_of(options.folder / "images", name))
        if image.shape not in shapes:
            segment(image)
            shapes.add(image.shape)
        times = []
        for _ in range(options.runs):
            start = time.perf_counter()
            labels = segment(image)
            times.append(time.perf_counter() - start)
        seconds[name] = statistics.median(times)
        imsave(options.out / f"{name}.png", labels.astype(np.uint16), check_contrast=False)
    report = {"parameters": parameters, "seconds": seconds}
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")


def turns(options: argparse.Namespace) -> None:
    """Segment the images of a file `(N, H, W, 3)` once for each line on stdin."""
    from turns import answer_turns, peak_memory

    images = np.load(options.images, allow_pickle=False)
    # StarDist prints what it loads to stdout, where only figures are expected.
    with contextlib.redirect_stdout(sys.stderr):
        segment, _ = load(options.model)
        segment(images[0])
    answer_turns(lambda: [segment(image) for image in images], options.runs, peak_memory())


def big(options: argparse.Namespace) -> None:
    """Segment a `.npy` in blocks, and print the seconds and the memory."""
    from csbdeep.data import Normalizer
    from stardist.models import StarDist2D
    from turns import peak_memory

    class Stretched(Normalizer):
        """By the percentiles of the whole image, as its blocks must look alike."""

        do_after = False

        def __init__(self, low: float, high: float) -> None:
            self.low, self.high = low, high

        def before(self, image: np.ndarray, axes: str) -> np.ndarray:
            return (image.astype(np.float32) - self.low) / (self.high - self.low)

        def after(self, *_) -> None:
            raise AssertionError("Labels are not normalized.")

    with contextlib.redirect_stdout(sys.stderr):
        model = StarDist2D(None, name=options.model.name, basedir=str(options.model.parent))
        image = np.load(options.image, mmap_mode="r", allow_pickle=False)
        model.predict_instances(np.zeros((64, 64, 3), np.float32))
        idle, start = peak_memory(), time.perf_counter()
        low, high = np.percentile(image, (1, 99.8))
        labels = np.lib.format.open_memmap(
            options.image.with_name("stardist.npy"), "w+", np.int32, image.shape
        )
        _, found = model.predict_instances_big(
            np.broadcast_to(image[..., None], (*image.shape, 3)),
            axes="YXC",
            block_size=1024,
            min_overlap=128,
            context=96,
            normalizer=Stretched(low, high),
            labels_out=labels,
        )
        labels.flush()
        seconds = time.perf_counter() - start
    memory = (peak_memory() - idle) / 2**20
    count = len(found["prob"])
    print(json.dumps({"seconds": seconds, "gigabytes": memory, "instances": count}))


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for command in (train, predict, turns, big):
        arguments = commands.add_parser(command.__name__, help=command.__doc__)
        arguments.set_defaults(run=command)
        arguments.add_argument("--cores", type=int, help="threads; default: what TensorFlow takes")
        if command is turns:
            arguments.add_argument("images", type=Path)
        elif command is big:
            arguments.add_argument("image", type=Path)
        elif command is train:
            arguments.add_argument("folders", type=Path, nargs="+")
            arguments.add_argument("--skip", type=Path, help="folder of lists FOLDER.txt")
        else:
            arguments.add_argument("folder", type=Path)
            arguments.add_argument("--names", type=Path, required=True)
        if command in (train, predict):
            arguments.add_argument("--out", type=Path, required=True)
        if command is train:
            arguments.add_argument("--minutes", type=float, required=True)
            arguments.add_argument(
                "--patch", type=int, default=256, help="its sides; 128: more updates"
            )
            arguments.add_argument("--epoch-steps", type=int, default=100)
        else:
            arguments.add_argument("--model", type=Path, required=True)
        if command in (predict, turns):
            arguments.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.cores:
        # The libraries read these when loaded: StarDist's own code uses OpenMP.
        os.environ["OMP_NUM_THREADS"] = str(options.cores)
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(options.cores)
        tf.config.threading.set_inter_op_parallelism_threads(options.cores)
    options.run(options)


if __name__ == "__main__":
    main()
