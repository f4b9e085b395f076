"""Show what the pair loss does to the embeddings of boundary detectors, on BSDS500.

    python benchmarks/boundary_embeddings.py BSDS500_FOLDER \
        --models "softmax=runs/softmax/preset" "pair first=runs/pair/preset"

Figures of each branch, on images of `--split`:

- main axis: the share of the variance of the embeddings along their first principal axis. The pair
  loss puts embeddings at two poles, where it is near 1, as if the sphere were a line.
- AUC: how well the map of the branch ranks boundary pixels, which at least `--consensus` of the
  annotators drew, above pixels that nobody drew and that are more than `--gap` pixels from every
  line. The last column is for the mean of all maps.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from boundaries import named_preset, read_photographs


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """The probability that a value of the first array ranks above one of the second."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    least = len(positive) * (len(positive) + 1) / 2
    return float((ranks.sum() - least) / (len(positive) * len(negative)))


def groups(truths: np.ndarray, consensus: float, gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that are boundary by consensus, and those far from every line."""
    from scipy.ndimage import distance_transform_edt

    share = truths.mean(axis=0)
    return share >= consensus, distance_transform_edt(share == 0) > gap


def measure(model: Any, photographs: list[Any], options: argparse.Namespace) -> list[str]:
    """A cell for each branch, and one for the mean of the maps."""
    moments: dict[int, list[Any]] = {stride: [0, 0.0, 0.0] for stride in model.strides}
    ranks = []
    for one in photographs:
        outputs = {
            k: np.asarray(v)[0] for k, v in model(one.pixels[None].astype("float32")).items()
        }
        on, off = groups(one.truths, options.consensus, options.gap)
        maps = 1 / (1 + np.exp(-outputs["logits"].astype("float64")))
        shown = [*np.moveaxis(maps, -1, 0)[:-1], maps.mean(axis=-1)]
        ranks.append([area_under_curve(x[on], x[off]) for x in shown])
        for stride in model.strides:
            x = outputs[f"embedding_{stride}"].astype("float64")
            x = x.reshape(-1, x.shape[-1])
            count, total, square = moments[stride]
            moments[stride] = [count + len(x), total + x.sum(axis=0), square + x.T @ x]
    auc = np.mean(ranks, axis=0)
    cells = []
    for (count, total, square), value in zip(moments.values(), auc):
        mean = total / count
        variances = np.linalg.eigvalsh(square / count - np.outer(mean, mean))
        cells.append(f"{variances[-1] / variances.sum():.2f} / {value:.4f}")
    return [*cells, f"{auc[-1]:.4f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--models", type=named_preset, nargs="+", required=True, metavar="NAME=PRESET_FOLDER"
    )
    parser.add_argument("--split", choices=("train", "val", "test"), default="val")
    parser.add_argument("--images", type=int, default=20, help="use only the first of them")
    parser.add_argument("--consensus", type=float, default=0.3)
    parser.add_argument("--gap", type=int, default=4, help="pixels")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras_rpe.models import BoundaryDetector

    photographs = read_photographs(options)
    print(f"{len(photographs)} images of {options.split}: main axis / AUC")
    for number, (name, folder) in enumerate(options.models):
        model = BoundaryDetector.from_preset(folder)
        if number == 0:
            heads = [*(f"stride {stride}" for stride in model.strides), "all maps"]
            print(f"{'':20s}" + "".join(f"{head:>16s}" for head in heads))
        cells = measure(model, photographs, options)
        print(f"{name:20s}" + "".join(f"{cell:>16s}" for cell in cells))


if __name__ == "__main__":
    main()
