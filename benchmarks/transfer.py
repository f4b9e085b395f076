"""What pretrained weights bring when few images are labelled.

    python benchmarks/transfer.py DSB2018_FOLDER --out runs/transfer

The same 40 training images and the same number of steps for three starts: a light backbone with
random weights, the same with ImageNet weights (extra `imagenet`), and the preset `nuclei`. The
validation images are of those that the preset did not see. Every run is a process of its own and
leaves its result in OUT, so that the benchmark continues where it was stopped. The preset has
another, smaller backbone than the first two, and has seen the 40 images before.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIGHT = "efficientnet_lite0"
STARTS = {
    f"{LIGHT}, random": None,
    f"{LIGHT}, ImageNet": "imagenet",
    "preset nuclei": "nuclei",
}


def train(folder: Path, start: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train one model and evaluate it on the images held out."""
    import keras

    from keras_rpe.data import find_label_pairs, label_folder, read_image, read_labels, split_pairs
    from keras_rpe.metrics import average_precision
    from keras_rpe.models import InstanceSegmenter

    # The split that the preset was trained with.
    training, validation = split_pairs(find_label_pairs(folder), 1 / 7, seed=0)
    step = len(training) // options.images
    names = [pair.name for pair in training[::step][: options.images]]
    keras.utils.set_random_seed(seed)
    if start == "preset nuclei":
        model = InstanceSegmenter.from_preset("nuclei")
    else:
        model = InstanceSegmenter(LIGHT, backbone_weights=STARTS[start])
    rate = keras.optimizers.schedules.CosineDecay(
        1e-6, options.steps, alpha=1e-2, warmup_target=1e-3, warmup_steps=options.steps // 10
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0))
    dataset = label_folder(folder, crop_size=128, batch_size=8, seed=seed, names=names)
    started = time.perf_counter()
    model.fit(dataset.repeat(), steps_per_epoch=options.steps, epochs=1, verbose=2)
    seconds = time.perf_counter() - started
    held_out = validation[:: len(validation) // options.validation][: options.validation]
    labels = [read_labels(pair.instances) for pair in held_out]
    found = [model.predict_instances(read_image(pair.image)).labels for pair in held_out]
    precision = float(average_precision(labels, found, thresholds=(0.5,))[0])
    return {"ap50": precision, "seconds": seconds}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--validation", type=int, default=40)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.run:
        start, seed = options.run[0], int(options.run[1])
        result = train(options.folder, start, seed, options)
        _file(options, start, seed).write_text(json.dumps(result))
        return
    for seed in range(options.seeds):
        for start in STARTS:
            if not _file(options, start, seed).is_file():
                print(f"{start}, seed {seed}", flush=True)
                command = [sys.executable, __file__, *sys.argv[1:], "--run", start, str(seed)]
                subprocess.run(command, check=True)
    print(
        f"{options.images} training images, {options.steps} steps of 8 crops of 128², "
        f"AP at IoU 0.5 on {options.validation} images held out, {options.seeds} seeds"
    )
    print("start                          mean   lowest  highest  minutes")
    for start in STARTS:
        files = [_file(options, start, seed) for seed in range(options.seeds)]
        results = [json.loads(file.read_text()) for file in files]
        values = [result["ap50"] for result in results]
        minutes = statistics.mean(result["seconds"] for result in results) / 60
        print(
            f"{start:28s} {statistics.mean(values):7.3f} {min(values):8.3f} {max(values):8.3f} "
            f"{minutes:8.1f}"
        )


def _file(options: argparse.Namespace, start: str, seed: int) -> Path:
    name = "-".join(start.replace(",", "").split())
    return options.out / f"{name}-{options.images}-{options.steps}-{seed}.json"


if __name__ == "__main__":
    main()
