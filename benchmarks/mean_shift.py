"""Compare blockwise with dense mean shift: time and peak memory of both passes.

    python benchmarks/mean_shift.py

Every case runs in a separate process. The dense loop is the formula as the paper writes it, with
automatic differentiation. "Bare" is only the matrix products and exponentials that an exact loop
needs if it uses the symmetry of the kernel and keeps no N x N matrix, for half of the N² pairs of
points:

- forward: a product of depth D + 1 that gives a tile of exponents, its exponential, and the
  products of the tile with D + 1 values for its rows and for its columns;
- backward: the first product and the exponential again, a second product of depth 2 (D + 1), and
  the products of either tile with D values for rows and for columns.

Nothing is summed up, normalized, multiplied elementwise or assembled. The tile size is the fastest
of several in this process before the first turn; framework, precision and threads are the same.

The methods take turns, and the times are medians; a ratio is the median of the ratios of
neighboring runs. Memory is the peak of the process above its memory when idle, after a step of 64
points.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from turns import answer_turns, peak_memory, take_turns

LOOPS, BANDWIDTH = 5, 0.2
TRAINING = 32, 1024, 24  # Lists, points and depth, as in a batch of windows.
# Number and side of the bare tiles of a step.
TILES = ((2, 512), (8, 256), (32, 128), (1, 512), (4, 256), (8, 512))


def dense(x, bandwidth, iterations):
    """Section 4 of the paper: P = K D⁻¹, Y = Pᵀ X, rows normalized."""
    import tensorflow as tf

    for _ in range(iterations):
        kernel = tf.exp((tf.matmul(x, x, transpose_b=True) - 1.0) / bandwidth**2)
        p = kernel / tf.reduce_sum(kernel, axis=1, keepdims=True)
        x = tf.math.l2_normalize(tf.matmul(p, x, transpose_a=True), axis=-1)
    return x


def bare(lists: int, n: int, depth: int, backward: bool, tiles: int, side: int) -> Callable:
    """The products and exponentials of `LOOPS` loops, as the docstring of this file counts them."""
    import tensorflow as tf

    steps = max(round(LOOPS * lists * n**2 / 2 / (tiles * side**2)), 1)
    turns = 4  # Sets of factors, so that no step reuses the set of the previous one.

    def random(*shape):
        return 0.1 * tf.random.stateless_normal((turns * tiles, *shape), (0, 1))

    rows, columns = random(side, depth + 1), random(depth + 1, side)
    left, right = random(side, 2 * (depth + 1)), random(2 * (depth + 1), side)
    values = random(depth + 1, side), random(depth, side)

    def step(i, back):
        def of_turn(x):
            return tf.slice(x, (i % turns * tiles, 0, 0), (tiles, *x.shape[1:]))

        v = of_turn(values[back])
        made = [tf.exp(tf.matmul(of_turn(rows), of_turn(columns)))]
        if back:
            made.append(tf.matmul(of_turn(left), of_turn(right)))
        for tile in made:
            yield tf.matmul(tile, v, transpose_b=True)
            yield tf.matmul(v, tile)

    def run(back):
        width = depth + 1 - back
        start = [tf.zeros((tiles, side, width)), tf.zeros((tiles, width, side))] * (1 + back)
        _, *made = tf.while_loop(
            lambda i, *_: i < steps,
            lambda i, *_: (i + 1, *step(i, back)),
            (0, *start),
            parallel_iterations=1,
        )
        # Unused results would not be computed.
        return [x[0, 0, 0] for x in made]

    return tf.function(lambda: tf.stack(run(0) + (run(1) if backward else [])))


def fastest_bare(lists: int, n: int, depth: int, backward: bool) -> Callable:
    """The bare operations in tiles of the best size."""
    seconds = {}
    for tiles, side in TILES:
        run = bare(lists, n, depth, backward, tiles, side)
        run()
        for _ in range(3):
            start = time.perf_counter()
            run().numpy()
            seconds[run] = min(time.perf_counter() - start, seconds.get(run, float("inf")))
    return min(seconds, key=seconds.get)


def measure(method: str, lists: int, n: int, depth: int, backward: bool, runs: int) -> None:
    """Print the times and the peak memory of one case as JSON, one line per run."""
    import tensorflow as tf

    from keras_rpe.ops import mean_shift

    if method == "bare":
        run = fastest_bare(lists, n, depth, backward)
        answer_turns(lambda: run().numpy(), runs, peak_memory())
        return
    shift = mean_shift if method == "ours" else dense

    @tf.function
    def step(x, weight):
        if not backward:
            return tf.reduce_sum(shift(x, BANDWIDTH, LOOPS) * weight)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(shift(x, BANDWIDTH, LOOPS) * weight)
        return tape.gradient(loss, x)

    def inputs(lists, n):
        x = tf.random.stateless_normal((lists, n, depth), (0, 1))
        weight = tf.random.stateless_normal((lists, n, depth), (2, 3))
        return tf.math.l2_normalize(x, axis=-1), weight

    step(*inputs(1, 64))  # This starts threads and loads libraries.
    x, weight = inputs(lists, n)
    idle = peak_memory()
    step(x, weight)
    answer_turns(lambda: step(x, weight).numpy(), runs, idle)


def compare(
    lists: int, n: int, depth: int, backward: bool, runs: int, methods: list[str]
) -> dict[str, list]:
    """Run the methods in turn and collect what they print."""
    numbers = [str(int(number)) for number in (lists, n, depth, backward)]
    case = [__file__, "--case", *numbers, "--runs", str(runs)]
    return take_turns({method: [*case, "--method", method] for method in methods}, runs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs=4, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--depths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--dense-limit", type=int, default=8192, help="largest N of the dense loop")
    parser.add_argument(
        "--training", action=argparse.BooleanOptionalAction, default=True, help="a batch of lists"
    )
    options = parser.parse_args()
    if options.case:
        lists, n, depth, backward = options.case
        measure(options.method, lists, n, depth, bool(backward), options.runs)
        return
    print(f"{LOOPS} loops, bandwidth {BANDWIDTH}, float32, median of {options.runs} runs in turn")
    print(
        "lists     N   D  pass              ours s   bare s  ours/bare   dense s  speed-up"
        "   ours MB  dense MB  memory"
    )
    cases = [(1, n, depth) for n in options.sizes for depth in options.depths]
    for lists, n, depth in [*cases, *([TRAINING] if options.training else [])]:
        for backward in (False, True):
            methods = ["ours", "bare"] + ["dense"] * (lists * n**2 <= options.dense_limit**2)
            results = compare(lists, n, depth, backward, options.runs, methods)
            name = "forward+backward" if backward else "forward"
            print(f"{lists:5d} {n:5d} {depth:3d}  {name:16s} {_figures(results)}", flush=True)


def _figures(results: dict[str, list]) -> str:
    def median(method: str, figure: str) -> float:
        return statistics.median(run[figure] for run in results[method])

    def ratio(method: str, other: str) -> float:
        pairs = zip(results[method], results[other])
        return statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)

    ours = median("ours", "megabytes")
    row = (
        f"{median('ours', 'seconds'):7.3f} {median('bare', 'seconds'):8.3f} "
        f"{ratio('ours', 'bare'):10.2f}"
    )
    if "dense" not in results:
        return f"{row} {'-':>9s} {'-':>9s} {ours:9.0f} {'-':>9s} {'-':>7s}"
    other = median("dense", "megabytes")
    return (
        f"{row} {median('dense', 'seconds'):9.3f} {ratio('dense', 'ours'):8.2f}x {ours:9.0f} "
        f"{other:9.0f} {ours / other:7.2f}"
    )


if __name__ == "__main__":
    main()
