"""Blockwise against dense mean shift: time and peak memory of both passes.

    python benchmarks/mean_shift.py

Every case runs in a process of its own. The dense loop is the formula as the paper writes it, with
automatic differentiation. The two take turns, and the times are medians; the ratio is the median
of the ratios of neighbouring runs. Memory is the peak of the process above that of the same
process when it is idle, after a step of 64 points.
"""

import argparse
import statistics

from turns import answer_turns, peak_memory, take_turns

LOOPS, BANDWIDTH = 5, 0.2


def dense(x, bandwidth, iterations):
    """Section 4 of the paper: P = K D⁻¹, Y = Pᵀ X, rows normalised."""
    import tensorflow as tf

    for _ in range(iterations):
        kernel = tf.exp((tf.matmul(x, x, transpose_b=True) - 1.0) / bandwidth**2)
        p = kernel / tf.reduce_sum(kernel, axis=1, keepdims=True)
        x = tf.math.l2_normalize(tf.matmul(p, x, transpose_a=True), axis=-1)
    return x


def measure(method: str, n: int, depth: int, backward: bool, runs: int) -> None:
    """Print the times and the peak memory of one case as JSON, one line a run."""
    import tensorflow as tf

    from keras_rpe.ops import mean_shift

    shift = mean_shift if method == "ours" else dense

    @tf.function
    def step(x, weight):
        if not backward:
            return tf.reduce_sum(shift(x, BANDWIDTH, LOOPS) * weight)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(shift(x, BANDWIDTH, LOOPS) * weight)
        return tape.gradient(loss, x)

    def inputs(n):
        x = tf.random.stateless_normal((1, n, depth), (0, 1))
        return tf.math.l2_normalize(x, axis=-1), tf.random.stateless_normal((1, n, depth), (2, 3))

    step(*inputs(64))  # Threads are started and libraries loaded.
    x, weight = inputs(n)
    idle = peak_memory()
    step(x, weight)
    answer_turns(lambda: step(x, weight).numpy(), runs, idle)


def compare(n: int, depth: int, backward: bool, runs: int, methods: list[str]) -> dict[str, list]:
    """Run the methods in turn and collect what they print."""
    case = [__file__, "--case", str(n), str(depth), str(int(backward)), "--runs", str(runs)]
    return take_turns({method: [*case, "--method", method] for method in methods}, runs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--depths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--dense-limit", type=int, default=8192, help="largest N of the dense loop")
    options = parser.parse_args()
    if options.case:
        n, depth, backward = options.case
        measure(options.method, n, depth, bool(backward), options.runs)
        return
    print(f"{LOOPS} loops, bandwidth {BANDWIDTH}, float32, median of {options.runs} runs in turn")
    print("    N   D  pass              ours s   dense s  speed-up   ours MB  dense MB  memory")
    for n in options.sizes:
        for depth in options.depths:
            for backward in (False, True):
                methods = ["ours"] + ["dense"] * (n <= options.dense_limit)
                results = compare(n, depth, backward, options.runs, methods)
                print(_row(n, depth, backward, results), flush=True)


def _row(n: int, depth: int, backward: bool, results: dict[str, list]) -> str:
    def median(method: str, figure: str) -> float:
        return statistics.median(run[figure] for run in results[method])

    name = "forward+backward" if backward else "forward"
    row = f"{n:5d} {depth:3d}  {name:16s} {median('ours', 'seconds'):7.3f}"
    if "dense" not in results:
        return f"{row} {'-':>9s} {'-':>9s} {median('ours', 'megabytes'):9.0f} {'-':>9s} {'-':>7s}"
    speed = statistics.median(
        b["seconds"] / a["seconds"] for a, b in zip(results["ours"], results["dense"])
    )
    ours, other = median("ours", "megabytes"), median("dense", "megabytes")
    return (
        f"{row} {median('dense', 'seconds'):9.3f} {speed:8.2f}x {ours:9.0f} {other:9.0f} "
        f"{ours / other:7.2f}"
    )


if __name__ == "__main__":
    main()
