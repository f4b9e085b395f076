"""Measure whether the pair loss helps boundaries, at several margins and dimensions.

    python benchmarks/boundary_losses.py BSDS500_FOLDER --out runs/boundary_losses

The paper trains embeddings with the pair loss first, and then for the boundary maps (Kong &
Fowlkes, CVPR 2018, section 4). `examples/train_boundaries.py` trains each network on `train` with
the same crops: with the pair loss in the first half of the updates, or with cross-entropy only.
Each margin and dimension of the pair loss is trained with one seed. The best of them by the ODS on
every other image of `val`, and cross-entropy only, in three and in as many dimensions, are trained
with all seeds. Figures are the ODS on the rest of `val`, and by how much that best one differs from
the better of cross-entropy only, with the middle 95 % when images are drawn with replacement.

OUT holds the presets, and their maps and counts; a call that was killed continues.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import boundaries
import numpy as np

TRAIN = Path(__file__).parents[1] / "examples" / "train_boundaries.py"
MARGINS, DIMENSIONS = (0.1, 0.3, 0.5), (3, 8, 16)


class Kind(NamedTuple):
    """What differs between networks."""

    margin: float
    dimensions: int
    share: float  # Of the updates with the pair loss.
    seed: int = 0

    @property
    def name(self) -> str:
        """In the table, without the seed."""
        loss = f"pair loss first, margin {self.margin:g}" if self.share else "cross-entropy only"
        return f"{loss}, {self.dimensions} dimensions"


def counts(kind: Kind, photographs: list, options: argparse.Namespace) -> np.ndarray:
    """Train a network, and count its boundary pixels in each image."""
    out = options.out / "_".join(f"{value:g}" for value in kind)
    if not (out / "preset" / "model.weights.h5").is_file():
        command = [sys.executable, TRAIN, options.folder, "--out", out]
        command += ["--updates", options.updates, "--learning-rate", options.learning_rate]
        command += ["--crop-size", options.crop_size]
        command += ["--embedding-share", kind.share, "--embedding-dim", kind.dimensions]
        command += ["--margin", kind.margin, "--seed", kind.seed]
        subprocess.run([str(one) for one in command], check=True, stdout=subprocess.DEVNULL)
    options.models = {"it": (out / "preset", (1.0,))}
    found = boundaries.make_rows(photographs, options)["it"].counts
    print(f"{kind.name}, seed {kind.seed}: ODS {ods(found[1::2], options):.4f}", flush=True)
    return found


def ods(found: np.ndarray, options: argparse.Namespace) -> float:
    """The ODS of counts of some images."""
    from keras_rpe.metrics import BoundaryFigures

    return BoundaryFigures.from_counts(found, options.levels).ods


def main() -> None:
    """Train and measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=600, help="whole hundreds")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--crop-size", type=int, default=224)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--thresholds", type=int, default=14)
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of the images")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras_rpe.metrics.boundaries import check_boundary_thresholds

    options.cache, options.levels = (
        options.out / "cache",
        check_boundary_thresholds(options.thresholds),
    )
    options.split, options.images, options.border = "val", None, 5
    options.peer_python, options.sigmas, options.time_again = None, (), False
    photographs = boundaries.read_photographs(options)
    seeds = range(options.seeds)
    found: dict[Kind, np.ndarray] = {}

    def measure(*kinds: Kind) -> None:
        for kind in kinds:
            if kind not in found:
                found[kind] = counts(kind, photographs, options)

    tried = [Kind(margin, dim, 0.5) for margin in MARGINS for dim in DIMENSIONS]
    measure(*tried)
    best = max(tried, key=lambda kind: ods(found[kind][::2], options))
    plain = [Kind(0.1, dim, 0.0) for dim in sorted({3, best.dimensions})]
    measure(*(kind._replace(seed=seed) for seed in seeds for kind in (best, *plain)))

    print(f"\nODS on half of val, {options.updates} updates: mean (range)")
    for name in dict.fromkeys(kind.name for kind in found):
        values = [ods(x[1::2], options) for kind, x in found.items() if kind.name == name]
        mean = np.mean(values)
        print(f"{name:45}{mean:.3f} ({min(values):.3f}-{max(values):.3f}), {len(values)} seeds")
    better = max(plain, key=lambda kind: ods(found[kind][::2], options))
    differences = np.mean(
        [
            boundaries.ods_differences(
                found[best._replace(seed=seed)][1::2],
                found[better._replace(seed=seed)][1::2],
                options.levels,
                options.bootstrap,
            )
            for seed in seeds
        ],
        axis=0,
    )
    low, high = np.percentile(differences, [2.5, 97.5])
    print(f"{best.name} - {better.name}: {np.mean(differences):+.4f}, {low:+.4f} to {high:+.4f}")


if __name__ == "__main__":
    main()
