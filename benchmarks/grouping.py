"""Compare ways to group unit embeddings into instances: time, memory, agreement with the truth.

    pip install scikit-learn
    python benchmarks/grouping.py
    python benchmarks/grouping.py --sizes --folder DSB2018  # Only embeddings of real images.

Simulated instances have centers with pairwise cosines below a limit, log-normal sizes of at least
30 points, and normal noise of a given length around the center. Real embeddings are those of the
preset on the images listed in `benchmarks/held_out`: for each group of images, they are the pixels
inside instances, at the stride of the network, in the prediction window with the most instances.

- ours, seeded: `seeded_mean_shift` with 512 seeds, bandwidth 0.2 and at most 10 loops; a group is
  the points whose rows of the result are equal;
- ours, exact: `mean_shift` with bandwidth 0.2 and 10 loops; the first converged point without a
  group forms one with all points of calibrated similarity 0.96 to it, and so on;
- NumPy, seeded: 100 farthest-point seeds, κ = 20, 10 loops; seeds are joined if (1 - cos)/2 is at
  most 0.04, and points go to the nearest seed, as in systems after the paper;
- MeanShift (bin seeding), DBSCAN (at least 5 neighbors) and HDBSCAN of scikit-learn. Bandwidth,
  radius and smallest group are the best of several, by the adjusted Rand index of up to 2,048
  points of the first such case; noise goes to the group with the nearest mean. In 64 dimensions,
  the grid of MeanShift is far from all points, and no bandwidth works well.

All methods have the same cores. They take turns, each in a separate process. Seconds are the
median, and ratios are the median of the ratios to "ours, seeded" in the same turn. A method that
takes more than a thirtieth of the time limit has one turn, and its ratio is to the median. It is
not started if it would exceed the limit, assuming that 4 times the points take 8 times as long.
Memory is the peak above the memory after a run on 64 points. ARI is the adjusted Rand index; "lost"
counts true instances of at least 30 points with which no group has an IoU above 0.5.
"""

import argparse
import contextlib
import resource
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from grouping_methods import METHODS
from turns import FAILED, SLOW, answer_turns, peak_memory, take_turns

OURS, EXACT = "ours, seeded", "ours, exact"
SMALLEST = 30
SPREAD = 1.0  # Standard deviation of the logarithm of the sizes.
TRIES = 100_000  # Most centers drawn until one is apart from the others.
TUNING_POINTS = 2048
OTHERS_SIZE = 65_536  # Most points in the cases with other depths and numbers of instances.


@dataclass
class Case:
    """Points and the true instance of each."""

    name: str
    points: np.ndarray
    truth: np.ndarray


def simulate(
    n: int, depth: int, instances: int, noise: float, max_cosine: float, seed: int = 0
) -> Case:
    """Draw unit vectors around centers that are apart."""
    if n < SMALLEST * instances:
        raise SystemExit(f"{instances} instances need at least {SMALLEST * instances} points: {n}")
    rng = np.random.default_rng(seed)
    centers = np.zeros((instances, depth))
    for i in range(instances):
        for _ in range(TRIES):
            center = rng.normal(size=depth)
            center /= np.linalg.norm(center)
            if (centers[:i] @ center < max_cosine).all():
                break
        else:
            raise SystemExit(f"{instances} centers do not fit: --max-cosine {max_cosine}")
        centers[i] = center
    share = rng.lognormal(0, SPREAD, instances)
    sizes = SMALLEST + ((n - SMALLEST * instances) * share / share.sum()).astype(int)
    sizes[np.argmax(sizes)] += n - sizes.sum()
    truth = rng.permutation(np.repeat(np.arange(instances), sizes))
    points = centers[truth] + noise / np.sqrt(depth) * rng.normal(size=(n, depth))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return Case("simulated", points.astype(np.float32), truth)


def embed_images(folder: Path, lists: Path, preset: str) -> list[Case]:
    """For each group of images, the window of prediction that holds the most instances."""
    from keras_rpe.data import label_folder
    from keras_rpe.models import InstanceSegmenter
    from keras_rpe.results import rgb_array

    model = InstanceSegmenter.from_preset(preset)
    stride, cells = model.output_stride, model.inference_window_size
    side = cells or model.mean_shift.window_size
    images = label_folder(folder)
    cases = []
    for file in sorted(lists.glob("*.txt")):
        group = file.stem.rpartition("_")[2]
        best = 0, "", (slice(0), slice(0))
        for name in file.read_text(encoding="utf-8").split():
            labels = images.subset([name])[0].instances[::stride, ::stride]
            for corner in np.ndindex(*(-(-length // side) for length in labels.shape)):
                window = tuple(slice(i * side, (i + 1) * side) for i in corner)
                found = len(np.unique(labels[window]))
                best = max(best, (found, name, window), key=lambda window: window[0])
        _, name, window = best
        labels = images.subset([name])[0].instances[::stride, ::stride][window]
        image = rgb_array(images.subset([name])[0].image)[None]
        embedding = np.asarray(model.embed(image)[0])[0][window]
        embedding = embedding[: labels.shape[0], : labels.shape[1]]  # Without padding.
        cases.append(Case(group, embedding[labels > 0], labels[labels > 0]))
    return cases


def lost_instances(truth: np.ndarray, found: np.ndarray) -> int:
    """True instances of at least `SMALLEST` points without a match."""
    _, truth, sizes = np.unique(truth, return_inverse=True, return_counts=True)
    _, found, areas = np.unique(found, return_inverse=True, return_counts=True)
    pairs, common = np.unique(truth * len(areas) + found, return_counts=True)
    true, group = np.divmod(pairs, len(areas))
    matched = true[common > 0.5 * (sizes[true] + areas[group] - common)]
    return int((np.delete(sizes, matched) >= SMALLEST).sum())


def best_setting(method: str, case: Case) -> float:
    """The setting with the best adjusted Rand index on a sample of the points."""
    from sklearn.metrics import adjusted_rand_score

    make, settings = METHODS[method]
    if len(settings) < 2:
        return settings[0] if settings else 0.0
    chosen = np.random.default_rng(0).permutation(len(case.points))[:TUNING_POINTS]
    scores = {}
    for setting in settings:
        try:
            groups = make(setting)(case.points[chosen])
        except ValueError:  # No point was within the bandwidth of any seed.
            scores[setting] = -np.inf
            continue
        scores[setting] = adjusted_rand_score(case.truth[chosen], groups)
    return max(scores, key=scores.get)


def measure(options: argparse.Namespace) -> None:
    """Answer turns with a method, and write the groups beside the points."""
    memory = int(options.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    x = np.load(options.points, allow_pickle=False)
    group = METHODS[options.method][0](options.setting)
    with contextlib.suppress(ValueError):  # Few points may be far from all seeds of a grid.
        group(x[:64])  # This starts threads and loads libraries.
    file = options.points.with_name(f"{options.method}.npy")
    answer_turns(lambda: np.save(file, group(x)), options.runs, peak_memory())


def compare(case: Case, settings: dict[str, float], options: argparse.Namespace) -> dict:
    """Let methods take turns; return the runs of each, and the groups of those that finished."""
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder) / "points.npy"
        np.save(points, case.points)
        common = [__file__, "--points", str(points), "--runs", str(options.runs)]
        common += ["--gigabytes", str(options.gigabytes)]
        commands = {
            method: [*common, "--method", method, "--setting", str(setting)]
            for method, setting in settings.items()
        }
        results = take_turns(commands, options.runs, options.limit, options.limit / 30)
        files = {method: Path(folder) / f"{method}.npy" for method in settings}
        return {
            method: (results[method], np.load(file) if file.exists() else None)
            for method, file in files.items()
        }


def row(case: Case, runs: list[dict], ours: list[dict], groups: np.ndarray, limit: float) -> str:
    """The figures of a method."""
    from sklearn.metrics import adjusted_rand_score

    outcome = runs[0].get("outcome")
    if outcome == SLOW:
        return f"{f'> {limit:.0f}':>9s} {f'> {limit / median_seconds(ours):.0f}':>8s}"
    if outcome == FAILED:
        return f"{'failed':>9s}"
    finished = [(a, b) for a, b in zip(runs, ours) if "seconds" in a and "seconds" in b]
    if len(finished) > 1:
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in finished)
    else:
        ratio = median_seconds(runs) / median_seconds(ours)
    megabytes = max(run["megabytes"] for run in runs if "megabytes" in run)
    score = adjusted_rand_score(case.truth, groups)
    return (
        f"{median_seconds(runs):9.3f} {ratio:8.1f} {megabytes:7.0f} {score:7.4f} "
        f"{lost_instances(case.truth, groups):5d} {len(np.unique(groups)):7d}"
    )


def median_seconds(runs: list[dict]) -> float:
    """The median of the runs that took place; not a number if there were none."""
    seconds = [run["seconds"] for run in runs if "seconds" in run]
    return statistics.median(seconds) if seconds else float("nan")


def affordable(method: str, case: Case, times: dict, options: argparse.Namespace) -> bool:
    """Whether a method may be started, judging by the times of smaller cases."""
    n = len(case.points)
    if method == EXACT and n > options.exact_limit:
        return False
    known = [(size, seconds) for size, seconds in times.get(method, []) if size <= n]
    if not known:
        return True
    size, seconds = max(known)
    return seconds * (n / size) ** 1.5 <= options.limit


def print_case(case: Case, settings: dict, times: dict, options: argparse.Namespace) -> None:
    """Measure a case and print its rows."""
    started = {m: s for m, s in settings.items() if affordable(m, case, times, options)}
    results = compare(case, started, options)
    n, depth = case.points.shape
    head = f"{case.name:12s} {n:7d} {depth:3d} {len(np.unique(case.truth)):9d}"
    for method, setting in settings.items():
        name = f"{method} {setting:g}" if setting else method
        if method not in results:
            print(f"{head}  {name:14s} {'not run':>9s}", flush=True)
            continue
        runs, groups = results[method]
        figures = row(case, runs, results[OURS][0], groups, options.limit)
        seconds = runs[0].get("seconds", float("inf"))
        times.setdefault(method, []).append((n, seconds))
        print(f"{head}  {name:14s} {figures}", flush=True)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """All sizes with the first depth and number, then the others at one size, then images."""
    depth, count = options.depths[0], options.instances[0]
    shapes = [(n, depth, count) for n in sorted(options.sizes)]
    if shapes:
        n = max((n for n in options.sizes if n <= OTHERS_SIZE), default=min(options.sizes))
        shapes += [(n, other, count) for other in options.depths[1:]]
        shapes += [(n, depth, other) for other in options.instances[1:]]
    for shape in shapes:
        yield simulate(*shape, options.noise, options.max_cosine)
    if options.folder:
        yield from embed_images(options.folder, options.lists, options.preset)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[4096, 16384, 65536, 262144])
    parser.add_argument("--depths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--instances", type=int, nargs="+", default=[60, 10, 300])
    parser.add_argument("--noise", type=float, default=0.3, help="length of the noise of a point")
    parser.add_argument("--max-cosine", type=float, default=0.5, help="of two centers")
    parser.add_argument("--folder", type=Path, help="images/ID.png and instances/ID.png")
    parser.add_argument("--lists", type=Path, default=Path(__file__).with_name("held_out"))
    parser.add_argument("--preset", default="nuclei", help="its name, or its folder")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--exact-limit", type=int, default=16384, help=f"largest N of {EXACT}")
    parser.add_argument("--limit", type=float, default=300, help="seconds of a run")
    parser.add_argument("--gigabytes", type=float, default=8, help="memory of a process")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--points", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.points:
        measure(options)
        return
    methods = [OURS, *(method for method in options.methods if method != OURS)]
    print(f"Noise {options.noise}, cosines of centers below {options.max_cosine}; float32;")
    print(f"median of {options.runs} runs in turn; a number after a method is its setting.")
    print(
        "points             N   D instances  method           seconds    ratio      MB     ARI"
        "  lost  groups"
    )
    times: dict[str, list[tuple[int, float]]] = {}
    settings: dict[tuple, dict[str, float]] = {}
    for case in cases(options):
        kind = case.name, case.points.shape[1], len(np.unique(case.truth))
        if kind not in settings:
            settings[kind] = {method: best_setting(method, case) for method in methods}
        print_case(case, settings[kind], times, options)


if __name__ == "__main__":
    main()
