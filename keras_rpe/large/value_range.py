"""Exact percentiles of images that are read in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

_HALF = 16  # Bits of a key that are counted at once.


def percentiles(
    parts: Callable[[], Iterable[np.ndarray]], percents: Sequence[float]
) -> list[float]:
    """Find the nearest-rank percentiles of the gray values, as `ImageNormalization` does.

    Gray is the mean of the first three channels, in float32. Numbers of 32 bits that are ordered
    like the values are counted by their upper half, and then by the lower half of those where a
    percentile lies.

    Args:
        parts: Gives the parts of the image, `(h, w)` or `(h, w, C)`; called twice.
        percents: From 0 to 100.

    Returns:
        The percentiles.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.large.value_range import percentiles
        >>> image = np.arange(101.0).reshape(1, 101)
        >>> percentiles(lambda: [image[:, :50], image[:, 50:]], [0, 1, 99])
        [0.0, 1.0, 99.0]
    """
    counts = np.zeros(2**_HALF, np.int64)
    for part in parts():
        counts += np.bincount(_keys(part) >> _HALF, minlength=2**_HALF)
    total = int(counts.sum())
    ranks = [int((total - 1) * percent / 100 + 0.5) for percent in percents]
    ends = np.cumsum(counts)
    upper = [int(np.searchsorted(ends, rank, side="right")) for rank in ranks]
    lower = {prefix: np.zeros(2**_HALF, np.int64) for prefix in upper}
    for part in parts():
        keys = _keys(part)
        for prefix, found in lower.items():
            those = keys[keys >> _HALF == prefix] & (2**_HALF - 1)
            found += np.bincount(those, minlength=2**_HALF)
    values = []
    for rank, prefix in zip(ranks, upper):
        before = int(ends[prefix] - counts[prefix])
        last = int(np.searchsorted(np.cumsum(lower[prefix]), rank - before, side="right"))
        values.append(_value((prefix << _HALF) + last))
    return values


def _keys(part: np.ndarray) -> np.ndarray:
    """The gray values as numbers of 32 bits in the same order."""
    gray = part.astype(np.float32)
    if gray.ndim == 3:
        gray = gray[..., :3].mean(axis=-1, dtype=np.float32)
    bits = (gray.ravel() + np.float32(0)).view(np.uint32)  # -0 becomes 0.
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.int64)


def _value(key: int) -> float:
    bits = np.uint32(key)
    bits = bits & np.uint32(0x7FFFFFFF) if key >> 31 else ~bits
    return float(np.array(bits, np.uint32).view(np.float32))
