"""Where the backends differ: loops that run inside the graph, and the device they run on."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import keras
from keras import ops

Tensor = Any
State = tuple[Tensor, ...]


def repeat(body: Callable[..., State], state: State, iterations: int) -> State:
    """Apply `body` a fixed number of times; reverse-mode differentiable.

    TensorFlow gets a `tf.while_loop` with a static bound (without it, its gradient does not compile
    under XLA), JAX a `fori_loop` with static bounds (its `while_loop` has no reverse gradient), any
    other backend a plain loop.

    Args:
        body: Takes the index (a scalar integer) and the state, returns the next state.
        state: Tuple of tensors whose shapes and dtypes `body` keeps.
        iterations: How often `body` is applied, a Python integer.

    Returns:
        The state after the last iteration.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return ops.while_loop(
            lambda i, *_: i < iterations,
            lambda i, *s: (i + 1, *body(i, *s)),
            (0, *state),
            maximum_iterations=iterations,
        )[1:]
    if backend == "jax":
        return ops.fori_loop(0, iterations, lambda i, s: body(i, *s), state)
    for i in range(iterations):
        state = body(i, *state)
    return state


def run_while(cond: Callable[..., Tensor], body: Callable[..., State], state: State) -> State:
    """Apply `body` to the state for as long as `cond` holds; no gradient.

    One iteration is in memory at a time: TensorFlow runs up to ten iterations of a loop side by
    side, each with its own temporaries, and Keras' own `while_loop` does not let a caller bound
    that.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.while_loop(cond, body, state, parallel_iterations=1)
    return ops.while_loop(cond, body, state)


def map_in_turn(
    function: Callable[[Tensor], State], count: Tensor | int, dtypes: tuple[Any, ...]
) -> State:
    """Stack what a function gives for 0, 1, …, count - 1, one after the other; no gradient.

    Args:
        function: Takes a scalar int32 tensor; its results are of the same shapes each time.
        count: How often, once at least; a Python integer on JAX.
        dtypes: Of the results.

    Returns:
        Tensors `(count, …)`.
    """
    indices = ops.arange(count, dtype="int32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # One iteration is in memory at a time, as in `run_while`.
        return tf.map_fn(function, indices, fn_output_signature=dtypes, parallel_iterations=1)
    return ops.map(function, indices)


def take(x: Tensor, index: Tensor, axis: int = 0) -> Tensor:
    """Do what `ops.take` does, for an index that is nowhere negative.

    On TensorFlow, Keras' own goes through the index three times to count negative ones from the
    end, which costs time, and operations in exported files.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(x, index, axis=axis)
    return ops.take(x, index, axis=axis)


def places(flags: Tensor) -> Tensor:
    """Where a flat boolean tensor is true, int32; all places if shapes must be known, as on JAX."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.cast(tf.where(flags)[:, 0], "int32")
    return ops.arange(ops.size(flags), dtype="int32")


def on_gpu() -> bool:
    """Whether the backend computes on a GPU."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    if backend == "jax":
        import jax

        return jax.default_backend() in ("gpu", "cuda", "rocm")
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.get_visible_devices("GPU"))
    return False


def device_name() -> str:
    """The backend, its version and its device, such as "jax 0.5.3 on NVIDIA H100 80GB HBM3"."""
    name = keras.backend.backend()
    device = f"CPU ({os.cpu_count()} cores)"
    if name == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.get_visible_devices("GPU"):
            device = tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    elif on_gpu() and name == "jax":
        import jax

        device = jax.devices()[0].device_kind
    elif on_gpu() and name == "torch":
        import torch

        device = torch.cuda.get_device_name()
    return f"{name} {version(name)} on {device}"
