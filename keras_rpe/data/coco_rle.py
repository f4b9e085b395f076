"""Run lengths of COCO's masks, compressed or not, checked before memory is taken."""

from __future__ import annotations

from typing import Any

import numpy as np

_MAX_CHARACTERS = 7  # A number of 35 bits, more than any mask has pixels.


def read_runs(counts: Any, pixels: int) -> np.ndarray:
    """Read the lengths of the runs of a mask, which are of 0 and 1 in turn, columns first.

    COCO compresses a list of lengths: from the fourth on, each is stored as the difference to the
    one two before it, in characters from "0" on that hold 5 bits each and whether one follows.

    Args:
        counts: A list of whole numbers, or a text of the compressed ones.
        pixels: What the lengths need to sum up to: height times width.

    Returns:
        The lengths, int64.

    Raises:
        ValueError: If they are anything else; the message tells why.

    Source:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the mask API of
        its authors, whose format this is.

    Example:
        >>> from keras_rpe.data.coco_rle import read_runs
        >>> read_runs("523N", 10).tolist(), read_runs([5, 2, 3], 10).tolist()
        ([5, 2, 3, 0], [5, 2, 3])
    """
    if isinstance(counts, str):
        runs = _uncompressed(counts)
    elif isinstance(counts, list) and all(type(one) is int for one in counts):
        if any(not 0 <= one <= pixels for one in counts):
            raise ValueError("it has a run that is negative or longer than the mask")
        runs = np.array(counts, np.int64)
    else:
        raise ValueError("its counts are neither a text nor a list of whole numbers")
    if len(runs) and (runs.min() < 0 or runs.max() > pixels):
        raise ValueError("it has a run that is negative or longer than the mask")
    if runs.sum() != pixels:  # no overflow: each is at most 2**28, and there are fewer than 2**31
        raise ValueError(f"its runs cover {runs.sum()} pixels, but the mask has {pixels}")
    return runs


def mask_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fill a mask.

    Args:
        runs: What `read_runs` returned.
        height: Rows.
        width: Columns.

    Returns:
        bool (H, W).

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.coco_rle import mask_of_runs
        >>> mask_of_runs(np.array([1, 2, 3]), 2, 3).astype(int).tolist()
        [[0, 1, 0], [1, 0, 0]]
    """
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _uncompressed(text: str) -> np.ndarray:
    try:
        bits = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("its counts have characters that no run length has") from None
    if not len(bits):
        return np.zeros(0, np.int64)
    if bits.min() < 0 or bits.max() > 63:
        raise ValueError("its counts have characters that no run length has")
    ends = np.flatnonzero(bits & 32 == 0)
    if not len(ends) or ends[-1] != len(bits) - 1:
        raise ValueError("its counts are cut short")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise ValueError("its counts have a number that is too large")
    places = np.arange(len(bits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((bits & 31) << (5 * places), starts)
    # The highest of the bits is the sign.
    values = values - np.where(bits[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs
