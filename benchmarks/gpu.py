"""Measure mean shift, training, prediction and the data pipeline on a GPU; needs one backend.

    KERAS_BACKEND=jax python benchmarks/gpu.py --json gpu.json
    KERAS_BACKEND=jax python benchmarks/gpu.py --small    # the same in a minute on a CPU
    KERAS_BACKEND=jax python benchmarks/gpu.py --parts train --batches 8

**Mean shift**: five loops, forward, and forward with the gradient, of the layer in float32 and
under mixed precision, of the formula as the paper writes it ("dense", N x N matrices and automatic
differentiation), and of the "bare" matrix products and exponentials of such loops in blocks of 2048
rows. All are counted alike: a loop is two products of N² pairs of points of depth D, 4 N² D
operations, and its gradient five, 10 N² D. "of peak" is their share of what the maker of the card
states for products of this precision, where the card is known; "of bare" that of the bare products.

**Grouping of prediction**: `SeededMeanShift` on windows of 64 x 64 points in 40 groups.

**Training**: images a second of `fit` with the recipe of the preset `nuclei` (crops of 128 pixels,
made beforehand), and of the pipeline of the crops alone. **Prediction**: images a second of
`predict` with the preset `nuclei`, pixels to labels. **Labels**: the share of pixels whose label is
the same as on the CPU of this machine, in another process. Images are drawn: discs of the size of
nuclei, on noise.

Memory is that of temporary values on JAX, and the peak of the device on TensorFlow and PyTorch.
A case that does not fit into memory is called "failed", and cases after `--minutes` are left out.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_rpe.data import LabelledImages, label_folder, write_image, write_labels
from keras_rpe.layers import MeanShiftRNN, SeededMeanShift
from keras_rpe.models import InstanceSegmenter
from keras_rpe.ops.backend import device_name, on_gpu

BACKEND = keras.backend.backend()
LOOPS, BANDWIDTH, ROWS = 5, 0.2, 2048
# Dense products, in 10¹² operations a second: float32 by the tensor cores where the backend uses
# them (TF32), and 16 bits.
PEAKS = {"H100": (494.7, 989.4), "H200": (494.7, 989.4), "A100": (156.0, 312.0), "L4": (60, 121)}
POLICIES = "float32", "mixed_float16", "mixed_bfloat16"
PARTS = ("group", "predict", "train", "shift")
DENSE_LIMIT = 16_384  # Points whose matrices of all loops fit 80 GB.


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors as training does."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=on_gpu())
    return function


def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """The gradient of the sum of squares of what a function of one tensor gives."""

    def loss(x: Any) -> Any:
        return ops.sum(ops.square(ops.cast(function(x), "float32")))

    if BACKEND == "jax":
        import jax

        return jax.grad(loss)
    if BACKEND == "torch":

        def backward(x: Any) -> Any:
            x = x.detach().requires_grad_()
            loss(x).backward()
            return x.grad

        return backward
    import tensorflow as tf

    def taped(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x)
        return tape.gradient(value, x)

    return taped


def wait(result: Any) -> None:
    """Wait until a result is there, which devices give before they have it."""
    for one in keras.tree.flatten(result):
        np.asarray(ops.convert_to_numpy(ops.ravel(one)[:1]))


def megabytes(function: Callable[..., Any], x: Any) -> float | None:
    """Memory of temporary values of a compiled function, or the peak of the device."""
    if BACKEND == "jax":
        return function.lower(x).compile().memory_analysis().temp_size_in_bytes / 1e6
    if not on_gpu():
        return None
    if BACKEND == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()
        wait(function(x))
        return torch.cuda.max_memory_allocated() / 1e6
    import tensorflow as tf

    tf.config.experimental.reset_memory_stats("GPU:0")
    wait(function(x))
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6


def seconds_of(run: Callable[[], Any], least: float = 0.2) -> float:
    """The median of at least three runs, after one that compiles."""
    wait(run())
    times: list[float] = []
    while len(times) < 3 or (sum(times) < least and len(times) < 50):
        start = time.perf_counter()
        wait(run())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def points(lists: int, n: int, depth: int, groups: int | None = None) -> np.ndarray:
    """Unit vectors at random, or in so many groups."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(lists, n, depth))
    if groups:
        x = 0.1 * x + rng.normal(size=(lists, groups, depth))[:, rng.integers(0, groups, n)]
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


def dense(x: Any) -> Any:
    """Section 4 of the paper, every kernel whole."""
    for _ in range(LOOPS):
        kernel = ops.exp((ops.matmul(x, ops.swapaxes(x, 1, 2)) - 1.0) / BANDWIDTH**2)
        x = ops.matmul(kernel, x) / ops.sum(kernel, axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))
    return x


def bare(dtype: str, products: int, n: int) -> Callable[[Any], Any]:
    """So many products of all pairs in blocks of rows, with an exponential for each two or five."""
    blocks = max(n // ROWS, 1)

    def run(x: Any) -> Any:
        x = ops.cast(x, dtype)
        keys = ops.transpose(x[0])
        total = ops.zeros_like(x[0, : n // blocks], dtype="float32")
        for block in range(blocks):
            rows = x[0, block * (n // blocks) : (block + 1) * (n // blocks)]
            for loop in range(LOOPS):
                kernel = ops.exp(ops.matmul(rows + 0.001 * loop, keys) - 1.0)
                total = total + ops.cast(ops.matmul(kernel, x[0]), "float32")
                if products > 2:  # The exponents again, one more tile, and two more sums.
                    again = ops.exp(ops.matmul(rows - 0.001 * loop, keys) - 1.0)
                    tile = again * ops.matmul(rows + 0.002 * loop, keys)
                    total = total + ops.cast(ops.matmul(tile, x[0]), "float32")
                    total = total + ops.cast(ops.matmul(again, x[0]), "float32")
                    total = total + ops.cast(ops.matmul(tile + 1.0, x[0]), "float32")
        return total

    return run


def shifts(sizes: list[int], depths: list[int], is_late: Callable[[], bool]) -> Iterator[dict]:
    """Rows of the table of mean shift."""
    peaks = next((peak for card, peak in PEAKS.items() if card in device_name()), None)
    for n in sizes:
        for depth in depths:
            x = ops.convert_to_tensor(points(1, n, depth))
            half = MeanShiftRNN(LOOPS, BANDWIDTH, dtype="mixed_bfloat16")
            methods = {
                "ours, float32": MeanShiftRNN(LOOPS, BANDWIDTH),
                "ours, mixed precision": half,
                "dense, float32": dense if n <= DENSE_LIMIT else None,
            }
            for backward in (False, True):
                operations = LOOPS * (14 if backward else 4) * n**2 * depth
                base = {"points": n, "depth": depth, "backward": backward}
                steps: dict[str, Callable[..., Any]] = {
                    f"bare, {dtype}": compiled(bare(dtype, 7 if backward else 2, n))
                    for dtype in ("float32", "bfloat16")
                }
                for name, method in methods.items():
                    if method is not None:
                        steps[name] = compiled(gradient(method) if backward else method)
                seconds: dict[str, float] = {}
                for name, step in steps.items():
                    if is_late():
                        return
                    row = {**base, "method": name}
                    try:
                        seconds[name] = seconds_of(functools.partial(step, x))
                        row["megabytes"] = megabytes(step, x)
                    except Exception as error:  # Mostly memory.
                        yield {**row, "failed": type(error).__name__}
                        continue
                    rate = operations / seconds[name] / 1e12
                    is_half = name.endswith(("mixed precision", "bfloat16"))
                    row |= {"seconds": seconds[name], "tflops": rate}
                    row["of_peak"] = rate / peaks[is_half] if peaks else None
                    fastest = seconds.get(f"bare, {'bfloat16' if is_half else 'float32'}")
                    row["of_bare"] = fastest / seconds[name] if fastest else None
                    yield row


def drawn_image(side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of discs, uint8 `(side, side, 3)`, and its label image."""
    rng = np.random.default_rng(seed)
    image, labels = rng.normal(20, 4, (side, side)), np.zeros((side, side), "int32")
    rows, columns = np.mgrid[:side, :side]
    for number in range(1, side * side // 900 + 1):
        top, left, radius = rng.integers(side), rng.integers(side), rng.uniform(6, 11)
        disc = np.hypot(rows - top, columns - left) < radius
        image[disc] += rng.uniform(60, 120)
        labels[disc] = number
    return np.repeat(image.clip(0, 255).astype("uint8")[..., None], 3, axis=-1), labels


def drawn_folder(folder: Path, count: int) -> LabelledImages:
    """Images of discs in a folder."""
    for part in ("images", "instances"):
        (folder / part).mkdir()
    for number in range(count):
        image, labels = drawn_image(256, number)
        write_image(folder / f"images/{number}.png", image)
        write_labels(folder / f"instances/{number}.png", labels)
    return label_folder(folder)


def fit_rate(
    policy: str, jit: bool, data: tuple[Any, ...], images: int, epochs: int, batch: int | None
) -> dict[str, float]:
    """Images a second of `fit` after an epoch that compiles, and the last loss."""
    keras.utils.set_random_seed(0)
    model = InstanceSegmenter("unet_small").with_dtype_policy(policy)
    optimizer = keras.optimizers.AdamW(2e-3, weight_decay=1e-4, global_clipnorm=1.0)
    model.compile(optimizer, jit_compile=jit)
    model.fit(*data, batch_size=batch, verbose=0)
    start = time.perf_counter()
    history = model.fit(*data, batch_size=batch, epochs=epochs, verbose=0).history
    seconds = time.perf_counter() - start
    return {"rate": epochs * images / seconds, "loss": history["loss"][-1]}


def training(
    images: LabelledImages, batches: list[int], steps: int, is_late: Callable[[], bool]
) -> Iterator[dict]:
    """Images a second of the pipeline, of `fit`, and of both together."""
    pipeline = images.crops(128, 8, repeats=8)
    count, start = 0, time.perf_counter()
    # A PyDataset has no end of its own for a loop; a tf.data.Dataset has no index.
    parts = pipeline if BACKEND == "tensorflow" else (pipeline[i] for i in range(len(pipeline)))
    for batch in parts:
        count += len(batch[0])
    yield {"case": "crops, one process", "batch": 8, "rate": count / (time.perf_counter() - start)}
    jits = {"tensorflow": (True, False), "jax": (True,), "torch": (False,)}[BACKEND]
    cases = [
        (batch, policy, jit, 0)
        for batch in batches
        for policy in POLICIES[: 2 if len(batches) == 1 else 3]
        for jit in jits
    ]
    cases.append((batches[-1], "mixed_float16", jits[0], os.cpu_count() or 1))
    for batch, policy, jit, workers in cases:
        if is_late():
            return
        case = f"fit, {policy}, {'XLA' if jit else 'no XLA'}"
        repeats = max(2 * batch // len(images), 1)
        crops = images.crops(128, batch, repeats=repeats, workers=workers or 1)
        if workers:
            case += f", crops by {workers} processes"
            data: tuple[Any, ...] = (crops,)
        else:
            made = [crops[i] for i in range(len(crops))]
            data = tuple(np.concatenate([one[k] for one in made]) for k in (0, 1))
        size = repeats * len(images)
        try:
            found = fit_rate(
                policy, jit, data, size, max(steps * batch // size, 1), None if workers else batch
            )
        except Exception as error:  # Mostly memory.
            yield {"case": case, "batch": batch, "failed": type(error).__name__}
            continue
        yield {"case": case, "batch": batch, **found}


def labels_of(images: list[np.ndarray]) -> list[np.ndarray]:
    """Labels of the bundled preset."""
    model = InstanceSegmenter.from_preset("nuclei")
    return [model.predict_instances(image).labels for image in images]


def prediction(sides: list[int], batch: int, is_late: Callable[[], bool]) -> Iterator[dict]:
    """Images a second from pixels to labels, and the agreement with the CPU."""
    model = InstanceSegmenter.from_preset("nuclei")
    for side in sides:
        if is_late():
            return
        images = np.stack([drawn_image(side, seed)[0] for seed in range(batch)])
        run = functools.partial(model.predict, images, batch_size=batch, verbose=0)
        seconds = seconds_of(run)
        yield {"case": f"predict, {side} x {side} pixels", "batch": batch, "rate": batch / seconds}
    if not is_late():
        here = labels_of([drawn_image(side, 0)[0] for side in sides])
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/labels.npz"
            hidden = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
            command = [sys.executable, __file__, "--labels", path, "--sides", *map(str, sides)]
            subprocess.run(command, env={**os.environ, **hidden}, check=True)
            with np.load(path) as file:
                there = [file[f"arr_{i}"] for i in range(len(sides))]
        same = np.mean([np.mean(a == b) for a, b in zip(here, there)])
        yield {"case": "labels as on the CPU", "batch": 1, "rate": float(same)}


def grouping(n: int, windows: int) -> dict:
    """Seconds of the grouping of prediction."""
    x = ops.convert_to_tensor(points(windows, n, 16, groups=40))
    step = compiled(SeededMeanShift())
    return {
        "case": f"SeededMeanShift, {windows} windows of {n} points",
        "batch": windows,
        "rate": windows / seconds_of(lambda: step(x)),
    }


def show(row: dict) -> None:
    """A row as a line of the table."""
    if "method" in row:
        kind = "forward, gradient" if row["backward"] else "forward"
        name = f"N = {row['points']}, D = {row['depth']}, {kind}, {row['method']}"
        parts = [f"{row['tflops']:8.2f} TFLOP/s"] if "tflops" in row else []
        for key in ("of_peak", "of_bare"):
            if row.get(key):
                parts.append(f"{row[key]:6.1%} {key.replace('_', ' ')}")
        if row.get("megabytes") is not None:
            parts.append(f"{row['megabytes']:,.0f} MB")
    else:
        name = f"{row['case']}, batch {row['batch']}"
        unit = "" if "labels" in row["case"] else " a second"
        parts = [f"{row['rate']:10.4g}{unit}"] if "rate" in row else []
    print(f"{name:68s}", *parts, row.get("failed", ""), flush=True)


def main() -> None:
    """Measure, print the table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write all rows into this file")
    parser.add_argument("--minutes", type=float, default=5.5, help="no new case after that")
    parser.add_argument("--small", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--labels", help=argparse.SUPPRESS)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512])
    options = parser.parse_args()
    if options.labels:
        np.savez(options.labels, *labels_of([drawn_image(s, 0)[0] for s in options.sides]))
        return
    small, end = options.small, time.monotonic() + 60 * options.minutes

    def is_late() -> bool:
        return time.monotonic() > end

    print(device_name(), flush=True)
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        images = drawn_folder(Path(folder), 4 if small else 16)
        parts = {
            "group": iter(grouping(n, k) for n, k in [(256, 1) if small else (4096, 8)]),
            "predict": prediction([64] if small else options.sides, 2 if small else 16, is_late),
            "train": training(
                images, [4] if small else options.batches, 2 if small else 20, is_late
            ),
            "shift": shifts(
                *(([256], [16]) if small else ([4096, 16_384, 65_536], [16, 64])), is_late
            ),
        }
        for name in options.parts:
            for row in parts[name]:
                rows.append(row)
                show(row)
    if options.json:
        result = {"device": device_name(), "keras": keras.__version__, "rows": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
