"""Show what mean shift in the loop does to the gradient, with three groups on a line.

    python examples/tutorials/gradient_toy.py --out runs/gradient_toy

Points are drawn around 3, 4 and 5. Points below 3.5 have the label 1, the others have the label 2,
and the fixed regressor x/2 - 1/2 is 1 at the point 3 and 2 at the point 5. So the middle group has
to join the right one. The points themselves are learned, by a few steps of gradient descent on the
squared error. Without mean shift, each point moves by itself, and the middle group stays behind.
With mean shift, and with the error also computed after every loop, the group is drawn together,
moves as a block, and merges with the right one. Kong & Fowlkes (CVPR 2018), section 4, train pixels
in this way.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_rpe.layers import MeanShiftRNN

rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

CENTERS, SPREADS = (3.0, 4.0, 5.0), (0.2, 0.3, 0.1)
MIDDLE, RIGHT = 1, 2
COLORS = np.array(["#0072b2", "#e69f00", "#009e73"])
INK, GRAY = "#20242c", "#7c8597"
VIEW = (2.3, 5.6)
# The package's mean shift moves points on the sphere. On a circle this large, the few units of the
# line are almost straight.
RADIUS, ORIGIN = 20.0, 4.0
NEAR = 0.1  # Points this close are at one place; this close to its median, in the right group.


class Run(NamedTuple):
    """What happens to the points in one setting."""

    name: str
    loops: int
    points: np.ndarray  # (steps + 1, n): the learned points.
    shifted: np.ndarray  # (steps + 1, n): the same after the last loop of mean shift.
    pull: np.ndarray  # (n,): the negative gradient at the first step.


def shift(x: tf.Tensor, loops: int, bandwidth: float) -> tf.Tensor:
    """Points of the line, `(n,)`, before mean shift and after each loop, `(loops + 1, n)`."""
    if loops == 0:
        return x[None]
    angle = (x - ORIGIN) / RADIUS
    on_circle = tf.stack([tf.cos(angle), tf.sin(angle)], axis=-1)
    layer = MeanShiftRNN(loops, bandwidth / RADIUS, return_sequences=True, dtype="float64")
    moved = layer(on_circle[None])[:, 0]
    return tf.concat([x[None], ORIGIN + RADIUS * tf.atan2(moved[..., 1], moved[..., 0])], axis=0)


def descend(
    name: str, loops: int, step_size: float, start: np.ndarray, labels: np.ndarray,
    options: argparse.Namespace,
) -> Run:  # fmt: skip
    """Move the points down the gradient of half the squared error, summed over the loops."""

    @tf.function
    def shifted_and_gradient(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            after_loops = shift(x, loops, options.bandwidth)
            error = 0.5 * tf.reduce_sum((0.5 * after_loops - 0.5 - labels) ** 2)
        return after_loops[-1], tape.gradient(error, x)

    points, shifted, slopes = [start], [], []
    for _ in range(options.steps + 1):
        after, slope = shifted_and_gradient(tf.constant(points[-1]))
        shifted.append(after.numpy())
        slopes.append(slope.numpy())
        points.append(points[-1] - step_size * slopes[-1])
    return Run(name, loops, np.array(points[:-1]), np.array(shifted), -slopes[0])


def middle_group(run: Run, group: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean, largest share at one place, and share that has joined the right group, at each step.

    All are after mean shift. Only points that should move right count: a few start below 3.5.
    """
    ours = np.sort(run.shifted[:, (group == MIDDLE) & (labels == 2)], axis=1)
    places = [np.searchsorted(x, x + NEAR) - np.arange(x.size) for x in ours]
    goal = np.median(run.shifted[:, group == RIGHT], axis=1, keepdims=True)
    joined = np.abs(ours - goal) < NEAR
    return ours.mean(axis=1), np.max(places, axis=1) / ours.shape[1], joined.mean(axis=1)


def draw_runs(runs: list[Run], group: np.ndarray, path: Path) -> None:
    """Draw the paths of some points of each group, and below them where all points are."""
    steps = len(runs[0].points) - 1
    figure = Figure(figsize=(3.7 * len(runs), 7.4), layout="constrained")
    grid = figure.add_gridspec(2, len(runs), height_ratios=(1, 1.05))
    some = np.concatenate([np.flatnonzero(group == g)[:60] for g in range(3)])
    for column, run in enumerate(runs):
        axes = figure.add_subplot(grid[0, column])
        axes.set_title(run.name, weight="bold")
        axes.axhline(3.5, color=GRAY, lw=1, ls=(0, (4, 3)))
        for i in some:
            if run.loops:
                axes.plot(run.points[:, i], color=COLORS[group[i]], lw=0.6, alpha=0.22)
            axes.plot(run.shifted[:, i], color=COLORS[group[i]], lw=0.9, alpha=0.6)
        axes.set(xlim=(0, steps), ylim=VIEW, xlabel="gradient step")
        axes.set_ylabel("" if column else "point")
        if run.loops:
            axes.text(steps, 2.37, "pale: points, strong: after mean shift ", size=9, ha="right")
        inner = grid[1, column].subgridspec(3, 1, hspace=0.06)
        for row, step in enumerate((0, steps // 3, steps)):
            axes = figure.add_subplot(inner[row])
            draw_places(axes, run, group, step, names=column == row == 0)
            axes.tick_params(bottom=row == 2, labelbottom=row == 2)
        axes.set_xlabel("point (below the line: after mean shift)" if run.loops else "point")
    figure.savefig(path, dpi=180)


def draw_places(axes: Axes, run: Run, group: np.ndarray, step: int, names: bool) -> None:
    """Draw the points upwards and their mean shift downwards, as the root of their number."""
    bins, base = np.linspace(*VIEW, 133), np.zeros(132)
    for g in range(3):
        before, after = (
            np.sqrt(np.histogram(values[step, group == g], bins)[0] / (group == g).sum())
            for values in (run.points, run.shifted)
        )
        axes.stairs(0.5 * before, bins, fill=True, color=COLORS[g], alpha=0.5)
        if run.loops:
            axes.stairs(base - 0.18 * after, bins, baseline=base, fill=True, color=COLORS[g])
            base = base - 0.18 * after
        if names:
            name = ("left", "middle", "right")[g]
            axes.text(CENTERS[g], 0.2, name, ha="center", color=COLORS[g], weight="bold", size=9)
    axes.axvline(3.5, color=GRAY, lw=1, ls=(0, (4, 3)))
    axes.axhline(0, color=INK, lw=0.8)
    axes.text(0.015, 0.93, f"step {step}", transform=axes.transAxes, va="top", size=9)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set(yticks=[], xlim=VIEW, ylim=(-0.38, 0.42))


def draw_pull(runs: list[Run], group: np.ndarray, path: Path) -> None:
    """The pull of the first step on each point, without and with mean shift."""
    figure = Figure(figsize=(8.4, 3.3), layout="constrained")
    for place, run in enumerate((runs[0], runs[-1])):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.axhline(0, color=INK, lw=0.8)
        axes.axvline(3.5, color=GRAY, lw=1, ls=(0, (4, 3)))
        order = np.random.default_rng(0).permutation(group.size)
        axes.scatter(run.points[0, order], run.pull[order], 5, COLORS[group[order]], lw=0)
        axes.set_title(run.name, weight="bold")
        axes.set(xlabel="point", xlim=VIEW, ylabel="" if place else "pull to the right")
    figure.savefig(path, dpi=180)


def main() -> None:
    """Descend without and with mean shift, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--points", type=int, default=1000, help="points of each group")
    parser.add_argument("--loops", type=int, default=5, help="loops of mean shift")
    parser.add_argument("--bandwidth", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--step-size", type=float, default=0.05)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    random = np.random.default_rng(0)
    start = np.concatenate([random.normal(c, s, options.points) for c, s in zip(CENTERS, SPREADS)])
    group = np.arange(3).repeat(options.points)
    labels = np.where(start < 3.5, 1.0, 2.0)
    # Each loop of mean shift passes on what pulls a group as a whole, so that the errors after L
    # loops pull it about 1 + L times as much. The second setting compensates only for that.
    times = options.loops + 1
    settings = (
        ("no mean shift", 0, options.step_size),
        (f"no mean shift, step times {times}", 0, times * options.step_size),
        (f"mean shift, {options.loops} loops", options.loops, options.step_size),
    )
    runs = [descend(*setting, start, labels, options) for setting in settings]
    figures = [middle_group(run, group, labels) for run in runs]
    print("middle group: mean, share at one place, share that has joined the right group")
    print("step" + "".join(f"{run.name:>28}" for run in runs))
    for step in range(0, options.steps + 1, max(1, options.steps // 6)):
        cells = (f"{m[step]:12.2f}{p[step]:8.1%}{j[step]:8.1%}" for m, p, j in figures)
        print(f"{step:>4}" + "".join(cells))
    print("\nshare of the first gradient's squared length on the tenth of the points it pulls most")
    for run in (runs[0], runs[-1]):
        squared = np.sort(run.pull**2)
        print(f"{run.name}: {squared[int(0.9 * squared.size) :].sum() / squared.sum():.1%}")
    draw_runs(runs, group, options.out / "runs.png")
    draw_pull(runs, group, options.out / "pull.png")
    print(f"\ndrawn in {options.out / 'runs.png'} and {options.out / 'pull.png'}")


if __name__ == "__main__":
    main()
