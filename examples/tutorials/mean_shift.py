"""Show mean shift as clustering: the bandwidth, small groups, and how fast groups contract.

    python examples/tutorials/mean_shift.py --out runs/mean_shift

In a loop, each point on the sphere moves to the mean of all points, weighted by the kernel
exp(κ (cos - 1)), κ = 1/bandwidth². In the package's mean shift, the moved points attract (blurring
mean shift), which contracts groups in a few loops. With a kernel that is too narrow, points hardly
move; with one that is too wide, large groups swallow small ones. See Kong & Fowlkes (CVPR 2018),
section 4.
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from keras_rpe.layers import MeanShiftRNN
from keras_rpe.ops import mean_shift, seeded_mean_shift
from keras_rpe.visualization import sphere_scatter, trajectory_picture

rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

INK, GRAY = "#20242c", "#7c8597"
COLORS = ("#0072b2", "#e69f00", "#009e73")
SIZES = (900, 250, 30)  # Sizes of the groups around the three axes.
KAPPAS = (100.0, 25.0, 6.0)  # A narrow kernel, the package's default, and one that is too wide.
VIEW = (45.0, 35.0)
NEAR = np.cos(np.radians(5))  # Points this close are at one place.
BANDWIDTH, STARTS = 0.2, (0.1, 0.2, 0.3)  # For the groups whose spread is measured.

compiled_mean_shift = tf.function(mean_shift)  # A hundred times as fast for few points.


def scattered(center: np.ndarray, count: int, spread: float, seed: int) -> np.ndarray:
    """Unit vectors `(count, 3)` around a unit vector; `spread` in radians, in each direction."""
    random = np.random.default_rng(seed)
    across = np.linalg.svd(center[None])[2][1:]
    offset = spread * random.normal(size=(count, 2))
    angle = np.linalg.norm(offset, axis=1, keepdims=True)
    return np.cos(angle) * center + np.sinc(angle / np.pi) * (offset @ across)


def count_places(x: np.ndarray) -> int:
    """Count the places at which there are points."""
    count = 0
    while len(x):
        x, count = x[x @ x[0] < NEAR], count + 1
    return count


def spread_of(x: np.ndarray) -> float:
    """Root mean square distance to the middle, in each of the two directions."""
    return float(np.sqrt(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean() / 2))


def follow_groups(loops: int, out: Path) -> None:
    """Move three groups of different sizes with three kernels."""
    x = np.concatenate([scattered(np.eye(3)[k], n, 0.16, seed=k) for k, n in enumerate(SIZES)])
    labels = np.arange(1, 4).repeat(SIZES)
    shown = [t for t in (0, 1, 2, 3, 5, 10, 16) if t <= loops]
    print("places after so many loops, and points of the others that the largest group swallowed")
    others = "".join(f"{f'of {n}':>8}" for n in SIZES[1:])
    print(f"{'loops':29}" + "".join(f"{t:>5}" for t in shown) + others)
    pictures, rows = [], []
    for kappa in KAPPAS:
        layer = MeanShiftRNN(loops, kappa**-0.5, return_sequences=True, dtype="float64")
        paths = np.concatenate([x[None], np.asarray(layer(x[None]))[:, 0]])
        places = [count_places(paths[t]) for t in shown]
        largest = np.median(paths[-1][labels == 1], axis=0)
        swallowed = [int((paths[-1][labels == k] @ largest > NEAR).sum()) for k in (2, 3)]
        name = f"kappa = {kappa:g}, bandwidth {kappa**-0.5:.2f}"
        print(f"{name:29}" + "".join(f"{n:>5}" for n in places) + "{:>8}{:>8}".format(*swallowed))
        title = name.replace("kappa", "$\\kappa$")
        pictures.append((title, trajectory_picture(paths, labels, view=VIEW, side=700)))
        if kappa != KAPPAS[0]:
            titles = [f"$\\kappa$ = {kappa:g}, " + (f"loop {t}" if t else "start") for t in shown]
            rows.append(sphere_scatter(*paths[shown], labels=labels, view=VIEW, titles=titles))
    save_side_by_side(pictures, out / "trajectories.png")
    save_side_by_side([("", np.concatenate(rows))], out / "loops.png")


def save_side_by_side(pictures: list[tuple[str, np.ndarray]], path: Path) -> None:
    """Draw pictures with titles, pixel for pixel."""
    height, width = pictures[0][1].shape[:2]
    total = width * len(pictures), height + (60 if pictures[0][0] else 0)
    figure = Figure(figsize=(total[0] / 100, total[1] / 100), dpi=100)
    for k, (title, picture) in enumerate(pictures):
        axes = figure.add_axes((k / len(pictures), 0, 1 / len(pictures), height / total[1]))
        axes.imshow(picture)
        axes.axis("off")
        axes.set_title(title, size=24, pad=6)
    figure.savefig(path)


def smallest_survivor(kappa: float, loops: tuple[int, ...]) -> np.ndarray:
    """The least weight of a point that survives beside an orthogonal point of weight 1.

    Found by bisection, for each number of loops. It survives if the angle stays above 60°.
    """
    points = tf.eye(2, batch_shape=(len(loops),), dtype="float64")
    bandwidth = tf.constant(kappa**-0.5, "float64")
    low, high = np.full(len(loops), -15.0), np.zeros(len(loops))  # Logarithms.
    for _ in range(40):
        middle = (low + high) / 2
        weights = tf.constant(np.stack([np.ones(len(loops)), 10**middle], axis=1)[..., None])
        moved = compiled_mean_shift(points, bandwidth, max(loops), 1.0, weights, True).numpy()
        ends = moved[np.array(loops) - 1, np.arange(len(loops))]
        survives = (ends[:, 0] * ends[:, 1]).sum(axis=-1) < 0.5
        low, high = np.where(survives, low, middle), np.where(survives, middle, high)
    return 10**high


def measure_swallowing(path: Path) -> None:
    """The smallest group that survives beside a large one, for each kernel."""
    loops = (5, 10, 16)
    print("\nsmallest group that survives beside one of size 1, at right angles")
    print("kappa " + "".join(f"{f'{t} loops':>12}" for t in loops))
    for kappa in (6.0, 10.0, 20.0, 25.0):
        print(f"{kappa:<6g}" + "".join(f"{size:12.2g}" for size in smallest_survivor(kappa, loops)))
    kappas = np.arange(6.0, 25.1, 0.5)
    sizes = np.array([smallest_survivor(kappa, loops) for kappa in kappas])
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(kappas, 1e-12, sizes[:, 0], color=GRAY, alpha=0.15, lw=0)
    for column, t, shade in zip(sizes.T, loops, COLORS):
        axes.plot(kappas, column, color=shade, lw=2, label=f"after {t} loops")
    axes.text(8, 1e-7, "swallowed", color=GRAY, size=12)
    axes.text(17, 1e-3, "survives", color=GRAY, size=12)
    axes.set(yscale="log", ylim=(1e-9, 1.5), xlim=(6, 25), xlabel="$\\kappa$ = 1/bandwidth²",
             ylabel="smallest size that survives beside 1")  # fmt: skip
    above = axes.secondary_xaxis("top")
    bandwidths = (0.4, 0.35, 0.3, 0.25, 0.2)
    above.set_xticks([b**-2 for b in bandwidths], [f"{b:g}" for b in bandwidths])
    above.set_xlabel("bandwidth")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=180)


def compare_convergence(count: int, loops: int, path: Path) -> None:
    """The spread of a group over the loops, in blurring and in ordinary mean shift."""
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    print(f"\nspread of a group, bandwidth {BANDWIDTH} (in brackets: as of a Gaussian on a plane)")
    print(f"{'start':8}{'loop':4}{'blurring':>24}{'data stay':>24}")
    for start, shade in zip(STARTS, COLORS):
        x = scattered(np.array([1.0, 0.0, 0.0]), count, start, seed=3)
        moved = {"blurring": [x], "data stay": [x]}
        weights = np.repeat([1.0, 0.0], count)[None, :, None]  # Points of weight 0 attract nothing.
        for some in moved.values():
            for _ in range(loops):
                both = np.concatenate([x if some is moved["data stay"] else some[-1], some[-1]])
                one_loop = mean_shift(both[None], BANDWIDTH, 1, weights=weights)
                some.append(np.asarray(one_loop)[0, count:])
        spreads = [[spread_of(y) for y in some] for some in moved.values()]
        # Points of a Gaussian of spread s end at s²/(s² + bandwidth²) of their distance.
        theory = [[spreads[0][0]], [spreads[0][0]]]
        for _ in range(loops):
            for some, s in zip(theory, (theory[0][-1], theory[1][0])):
                some.append(some[-1] * s**2 / (s**2 + BANDWIDTH**2))
        for t in range(min(loops, 5) + 1):
            cells = (f"{a[t]:13.1e} ({b[t]:.1e})" for a, b in zip(spreads, theory))
            print(f"{start:<8}{t:<4}" + "".join(cells))
        modes = np.asarray(seeded_mean_shift(x[None], BANDWIDTH))[0]
        off = np.degrees(np.arccos(modes[0] @ np.mean(moved["data stay"][-1], axis=0)))
        print(f"{start:<8}from seeds: {count_places(modes)} place, {off:.1f}° from where data stay")
        for some, of_gaussian, fill in zip(spreads, theory, (shade, "white")):
            axes.plot(some, "-o", color=shade, ms=5, mfc=fill, zorder=3)
            axes.plot(of_gaussian, ":", color=INK, lw=1)
    styles = [{"marker": "o"}, {"marker": "o", "mfc": "white"}, {"ls": ":", "lw": 1}]
    names = ["blurring mean shift", "ordinary: the data stay", "as of a Gaussian"]
    handles = [Line2D([], [], color=INK, label=name, **one) for one, name in zip(styles, names)]
    names = [f"spread {start} at first" for start in STARTS]
    handles += [Line2D([], [], color=c, label=name) for c, name in zip(COLORS, names)]
    axes.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set(yscale="log", ylim=(1e-9, 1), xlabel="loop", ylabel="spread of the group (radians)")
    figure.savefig(path, dpi=180)


def main() -> None:
    """Print the tables and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--loops", type=int, default=10)
    parser.add_argument("--points", type=int, default=1000, help="of a group that contracts")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    follow_groups(options.loops, options.out)
    measure_swallowing(options.out / "small_groups.png")
    compare_convergence(options.points, options.loops, options.out / "convergence.png")
    print(f"\ndrawn: trajectories, loops, small_groups and convergence.png in {options.out}")


if __name__ == "__main__":
    main()
