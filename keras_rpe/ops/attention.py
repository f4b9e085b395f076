"""A loop of mean shift as fused attention, which JAX and PyTorch have on GPUs.

Queries, keys and values are the same points and the weights m an additive bias, so that

    softmax(κ X Xᵀ + log m) X  =  attention(q = [κ x, 1], k = [x, log m], v = x) at scale 1,

and κ, being part of q, keeps its gradient. The kernel is never in memory (Dao et al.,
"FlashAttention", NeurIPS 2022).
"""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from keras_rpe.ops.backend import on_gpu

Tensor = Any

_DEPTHS = 8  # The fused kernels take depths that are a multiple of it,
_POINTS = 64  # and numbers of points that are a multiple of this.
_NO_WEIGHT = -1e4  # log m of a point without weight: float16 has it, and its exponential is 0.


def attention_mean(x: Tensor, weights: Tensor, kappa: Tensor) -> Tensor:
    """Weighted mean of all points at each point; zeros in lists that have no weight at all.

    Args:
        x: Points `(lists, N, D)`, float32.
        weights: Their weights `(lists, N, 1)`; no gradient flows to them.
        kappa: κ, a scalar tensor.

    Returns:
        The means `(lists, N, D)`, in the dtype of x; on a GPU they are computed in float16.
    """
    n, depth = ops.shape(x)[1], x.shape[-1]
    more = [[0, 0], [0, -n % _POINTS], [0, 0]]
    points, weights = ops.pad(x, more), ops.pad(weights, more)
    there = weights > 0
    bias = ops.where(there, ops.log(ops.where(there, weights, 1.0)), _NO_WEIGHT)
    one, none = ops.ones_like(bias), ops.zeros_like(bias)
    fill = [none] * (-(depth + 1) % _DEPTHS)
    mean = _attention(
        ops.concatenate([kappa * points, one, *fill], axis=-1),
        ops.concatenate([points, ops.stop_gradient(bias), *fill], axis=-1),
        ops.concatenate([points, none, *fill], axis=-1),
    )
    any_weight = ops.cast(ops.any(there, axis=1, keepdims=True), x.dtype)
    return any_weight * ops.cast(mean[:, :n, :depth], x.dtype)


def _attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    gpu = on_gpu()
    if gpu:
        # bfloat16 would lose another digit.
        queries, keys, values = (ops.cast(x, "float16") for x in (queries, keys, values))
    if keras.backend.backend() == "jax":
        import jax

        queries, keys, values = (x[:, :, None] for x in (queries, keys, values))
        kind: Any = "cudnn" if gpu else "xla"
        return jax.nn.dot_product_attention(queries, keys, values, scale=1.0, implementation=kind)[
            :, :, 0
        ]
    if keras.backend.backend() == "torch":
        from torch.nn import functional
        from torch.nn.attention import SDPBackend, sdpa_kernel

        queries, keys, values = (x[:, None] for x in (queries, keys, values))
        # The plain implementation, which keeps the kernel, only where there is no other.
        kinds = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]
        kinds.append(SDPBackend.EFFICIENT_ATTENTION if gpu else SDPBackend.MATH)
        with sdpa_kernel(kinds):
            return functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)[:, 0]
    raise ValueError(
        "`implementation` must be 'tiles' or 'rows' on this backend, which has no fused attention. "
        "Received: implementation='attention'"
    )


@functools.cache
def has_fused_attention(depth: int) -> bool:
    """Whether there is a GPU that runs `attention_mean` for points of this depth, forward and back.

    It is tried once: older cards, and depths above 127 on most, have no such kernel.
    """
    if not on_gpu() or keras.backend.backend() not in ("jax", "torch"):
        return False

    def loss(x: Tensor) -> Tensor:
        return ops.sum(ops.square(attention_mean(x, ops.ones_like(x[..., :1]), 25.0)))

    try:
        if keras.backend.backend() == "jax":
            import jax

            # Compiled and not run, as the first call may be inside of a trace.
            example = jax.ShapeDtypeStruct((1, _POINTS, depth), "float32")
            jax.jit(jax.grad(loss)).lower(example).compile()
        else:
            x = keras.ops.convert_to_tensor(keras.random.normal((1, _POINTS, depth), seed=0))
            loss(x.detach().requires_grad_()).backward()
    except Exception:  # Whatever the compilers and drivers of cards raise.
        return False
    return True
