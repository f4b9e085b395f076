"""The number type bfloat16, which NumPy lacks."""

from __future__ import annotations

import numpy as np


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Widen bfloat16, the upper half of the bits of a float32; nothing is rounded.

    Args:
        bits: The numbers as uint16, any shape.

    Returns:
        The same numbers in float32, contiguous.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.checkpoints.bfloat16 import bfloat16_to_float32
        >>> bfloat16_to_float32(np.array([0x3F80, 0xC000], "uint16"))
        array([ 1., -2.], dtype=float32)
    """
    wide = np.array(bits, dtype=np.uint32, order="C")
    wide <<= 16
    return wide.view(np.float32)
