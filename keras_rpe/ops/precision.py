"""Precision of the steps that half precision cannot carry."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any


def at_least_float32(x: Tensor) -> Tensor:
    """Cast float16 and bfloat16 to float32, and leave float32 and float64 as they are."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, "float32") if dtype in ("float16", "bfloat16") else x


def precise_dtype() -> str:
    """The global dtype policy, or float32 where that computes in 16 bits."""
    policy = keras.config.dtype_policy()
    return "float32" if policy.compute_dtype in ("float16", "bfloat16") else str(policy.name)
