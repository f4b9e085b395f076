"""Show how many groups fit on the sphere at a margin, and the lowest possible loss.

    python examples/tutorials/margins.py --out runs/margins

The loss requires that pixels of different groups have a similarity s = (1 + cos)/2 of at most the
margin. So N groups need N points on the sphere that are this far apart, and in fewer dimensions the
smallest margin is larger. With a margin below 1/2 and many groups, the loss cannot become 0, and a
loss that stops at its floor is optimal. But then groups may share a point without any change of the
loss. Kong & Fowlkes (CVPR 2018), section 3, relate margin and dimension in this way.
"""

import argparse
import math
from pathlib import Path

import keras
import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from keras_rpe.losses import CosineMarginLoss
from keras_rpe.margins import (
    capacity,
    loss_floor,
    margin_lower_bound,
    smallest_margin,
    spread_points,
)
from keras_rpe.visualization import sphere_scatter

rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

INK, GRAY = "#20242c", "#7c8597"
ON_SPHERES = (4, 5, 6, 7, 8, 9, 10, 11, 12, 24)
TABLED = (4, 6, 12, 20, 32, 64, 128)
BEYOND = (17, 20, 24, 32, 33, 48, 64, 96, 128, 129, 144, 192, 256, 384, 512)
OF_FLOOR = (4, 8, 12, 16, 24, 32, 48, 64)


def fejes_toth_margin(groups: int) -> float:
    """Fejes Tóth's bound (1943) for D = 3, reached by 3, 4, 6 and 12 groups."""
    return 0.25 / math.sin(math.pi * groups / (6 * (groups - 2))) ** 2


def fejes_toth_margin_of_many(groups: int) -> float:
    """The first terms of this bound for many groups; they are loose for few groups."""
    return 1 - 2 * math.pi / (math.sqrt(3) * groups)


def print_tables(dims: list[int], most: int) -> None:
    """Smallest margins and numbers of groups."""
    print("D = 3: smallest margin, Fejes Tóth's bound, and its form for many groups")
    for n in range(4, 13):
        bounds = f"{fejes_toth_margin(n):8.3f}{fejes_toth_margin_of_many(n):8.3f}"
        print(f"N = {n:<4}{smallest_margin(3, n).margin:8.3f}{bounds}")
    tabled = [n for n in TABLED if n <= most]
    print("\nsmallest margin found for N groups (~: perhaps not the smallest)")
    print("     N" + "".join(f"{n:>8}" for n in tabled))
    for dim in dims:
        found = [smallest_margin(dim, n) for n in tabled]
        texts = [f"{'' if one.exact else '~'}{one.margin:.3f}" for one in found]
        print(f"D = {dim:<2}" + "".join(f"{text:>8}" for text in texts))
    margins = (0.1, 0.3, 0.5, 0.6)
    print("\nhow many groups fit at a margin, at least and at most")
    print("margin" + "".join(f"{margin:>14}" for margin in margins))
    for dim in dims:
        fits = [capacity(dim, margin) for margin in margins]
        texts = [str(c.groups) if c.exact else f"{c.groups} - {c.upper_bound}" for c in fits]
        print(f"D = {dim:<2}" + "".join(f"{text:>14}" for text in texts))


def color(index: int, count: int) -> tuple[float, ...]:
    """Color of one of several curves, from dark to bright."""
    return colormaps["viridis"](0.05 + 0.8 * index / max(count - 1, 1))


def draw_margins(dims: list[int], most: int, path: Path) -> None:
    """The smallest margin over the number of groups, a curve for each dimension."""
    figure = Figure(figsize=(8.4, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.5, color=GRAY, lw=1, ls=(0, (4, 3)))
    axes.text(6, 0.37, "up to D + 1 groups: a simplex", color=GRAY, size=9, va="top")
    axes.text(most, 0.485, "up to 2 D groups: axes", color=GRAY, size=9, va="top", ha="right")
    height = 1.08
    for index, dim in enumerate(dims):
        shade = color(index, len(dims))
        # All numbers whose margins are known, and some that need a search.
        known = most if dim == 2 else max(2 * dim, 14 if dim == 3 else 0)
        counts = [*range(2, min(known, most) + 1), *(n for n in BEYOND if known < n <= most)]
        found = [smallest_margin(dim, n) for n in counts]
        searched = [(n, one.margin) for n, one in zip(counts, found) if not one.exact]
        axes.plot(counts, [one.margin for one in found], color=shade, lw=2, zorder=3)
        axes.plot(*np.reshape(searched, (-1, 2)).T, "o", color=shade, ms=4.5, zorder=3)
        every = np.arange(min(known, most), most + 1)
        bound = [margin_lower_bound(dim, int(n)) for n in every]
        axes.plot(every, bound, color=shade, lw=1.2, ls=(0, (3, 2)))
        above = np.interp(np.log(every), np.log(counts), [one.margin for one in found])
        axes.fill_between(every, bound, above, color=shade, alpha=0.13, lw=0)
        height = min(found[-1].margin, height - 0.055)
        axes.text(1.08 * most, height, f"D = {dim}", color=shade, va="center", weight="bold")
    styles = [{"lw": 2}, {"lw": 0, "marker": "o", "ms": 4.5}, {"lw": 1.2, "ls": (0, (3, 2))}]
    handles = [Line2D([], [], color=INK, **one) for one in styles]
    axes.legend(handles, ["smallest margin", "found by a search", "below this, impossible"],
                loc="lower right", frameon=False)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlim=(1.7, 1.03 * most), ylim=(0, 1.03), xlabel="number of groups", ylabel="margin")
    figure.savefig(path, dpi=180)


def draw_spheres(path: Path) -> None:
    """Points on the ordinary sphere, as far apart as possible, each with its own cap."""
    pictures = []
    turn = np.linspace(0, 2 * np.pi, 240, endpoint=False)[:, None]
    for groups in ON_SPHERES:
        margin = smallest_margin(3, groups).margin
        radius = 0.5 * math.acos(2 * margin - 1)
        x = []
        for point in spread_points(3, groups):
            # Two directions at right angles to the point and to each other.
            first, second = np.linalg.svd(point[None])[2][1:]
            rim = np.cos(turn) * first + np.sin(turn) * second
            x += [np.tile(point, (100, 1)), math.cos(radius) * point + math.sin(radius) * rim]
        labels = np.repeat(np.arange(1, groups + 1), 340)
        title = f"{groups} groups, margin {margin:.3f}"
        pictures.append(
            sphere_scatter(
                np.concatenate(x), labels=labels, titles=[title], view=(25, 22), side=360
            )
        )
    rows = [np.concatenate(pictures[k : k + 5], axis=1) for k in range(0, len(pictures), 5)]
    keras.utils.save_img(path, np.concatenate(rows), scale=False)


def loss_of(points: np.ndarray, margin: float) -> float:
    """The loss of an image whose groups have one point each."""
    loss = CosineMarginLoss(margin=margin, num_samples=None, dtype="float64")
    return max(0.0, float(loss(np.arange(len(points))[None, None], points[None, None])))


def draw_floor(path: Path) -> None:
    """The floor of the loss, and the losses of three arrangements, printed and drawn."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    arrangements = {
        "spread, D = 64": [spread_points(64, n) for n in OF_FLOOR],
        "spread, D = 3": [spread_points(3, n) for n in OF_FLOOR],
        "D = 3, at 4 places": [spread_points(3, 4)[np.arange(n) % 4] for n in OF_FLOOR],
    }
    styles = [("o", 6, "#0072b2"), ("x", 6, "#d55e00"), ("s", 9, "#009e73")]
    print("\nloss of N groups" + "".join(f"{name:>20}" for name in ["floor", *arrangements]))
    for place, margin in enumerate((0.1, 0.3, 0.5)):
        axes = figure.add_subplot(1, 3, place + 1)
        every = range(2, OF_FLOOR[-1] + 1)
        axes.plot(every, [loss_floor(n, margin) for n in every], color=GRAY, lw=2, label="floor")
        columns = [[loss_floor(n, margin) for n in OF_FLOOR]]
        for (name, some), (marker, size, shade) in zip(arrangements.items(), styles):
            columns.append([loss_of(points, margin) for points in some])
            axes.plot(OF_FLOOR, columns[-1], lw=0, marker=marker, ms=size, color=shade, label=name,
                      mfc="none" if marker == "s" else shade)  # fmt: skip
        for n, *row in zip(OF_FLOOR, *columns):
            print(f"margin {margin}, {n:>4}" + "".join(f"{loss:20.4f}" for loss in row))
        axes.set_title(f"margin {margin}", weight="bold")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="number of groups", ylim=(-0.015, 0.42))
        axes.set_ylabel("" if place else "loss")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=180)


def main() -> None:
    """Print the tables and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 3, 8, 16, 64])
    parser.add_argument("--most-groups", type=int, default=256)
    options = parser.parse_args()
    if min(options.dims) < 2 or not 4 <= options.most_groups <= 512:
        parser.error("--dims need at least 2, and --most-groups a number from 4 to 512")
    options.out.mkdir(parents=True, exist_ok=True)
    print_tables(options.dims, options.most_groups)
    draw_floor(options.out / "loss_floor.png")
    draw_spheres(options.out / "spheres.png")
    draw_margins(options.dims, options.most_groups, options.out / "margins.png")
    print(f"\ndrawn: margins.png, spheres.png and loss_floor.png in {options.out}")


if __name__ == "__main__":
    main()
