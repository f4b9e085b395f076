"""Compare training on TensorFlow and on JAX, in turns on the same CPU.

    python benchmarks/backends.py DSB2018

Each backend runs in a process of its own, and they train by turns: the nuclei recipe, batches of 8
crops of 128 x 128 pixels from the same folder, augmented and made during training as in
`examples/train_nuclei.py`, compiled by XLA. A turn is one epoch; the first one, which compiles, is
not counted. The ratio is the median of the ratios of neighboring turns.
"""

import argparse
import os
import statistics
from pathlib import Path

from turns import answer_turns, peak_memory, take_turns

BATCH, BATCHES = 8, 12


def train(options: argparse.Namespace) -> None:
    """Train for one epoch at each line on stdin."""
    os.environ["KERAS_BACKEND"] = options.backend
    import keras

    from keras_rpe.data import label_folder
    from keras_rpe.models import InstanceSegmenter

    keras.utils.set_random_seed(0)
    images = label_folder(options.folder)[: BATCH * BATCHES]
    crops = images.crops(128, BATCH, seed=0, augment="microscopy", diameter=20.0)
    model = InstanceSegmenter("unet_small")
    model.compile(keras.optimizers.AdamW(2e-3, weight_decay=1e-4, global_clipnorm=1.0))

    def epoch() -> None:
        model.fit(crops, verbose=0)

    epoch()
    answer_turns(epoch, options.turns, peak_memory())


def main() -> None:
    """Print images a second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DSB2018")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--backend", help="train on this one, for the lines on stdin")
    options = parser.parse_args()
    if options.backend:
        train(options)
        return
    common = [__file__, str(options.folder), "--turns", str(options.turns)]
    names = ("tensorflow", "jax")
    runs = take_turns({name: [*common, "--backend", name] for name in names}, options.turns)
    seconds = {name: [one["seconds"] for one in runs[name]] for name in names}
    for name, values in seconds.items():
        print(f"{name:10}  {BATCH * BATCHES / statistics.median(values):6.1f} images a second")
    ratios = [one / other for one, other in zip(*seconds.values())]
    print(f"jax is {statistics.median(ratios):.2f} times as fast as tensorflow")


if __name__ == "__main__":
    main()
