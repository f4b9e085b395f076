"""Checks of the arguments that the functions on margins share."""

from __future__ import annotations

import math
import numbers
from typing import Any

MOST_DIM = 65_536  # As of the embedding head.
MOST_GROUPS = 10**9  # Numbers of groups end here: more than any image has pixels.


def check_dim(dim: Any) -> None:
    """Check that it is a dimension of a sphere's space that the embedding head may have."""
    if not _is_integer(dim) or not 2 <= dim <= MOST_DIM:
        raise ValueError(
            f"`dim` must be an integer of at least 2 and at most {MOST_DIM}. Received: dim={dim}"
        )


def check_groups(groups: Any) -> None:
    """Check that it is a number of groups."""
    if not _is_integer(groups) or not 1 <= groups <= MOST_GROUPS:
        raise ValueError(
            f"`groups` must be an integer of at least 1 and at most {MOST_GROUPS}. "
            f"Received: groups={groups}"
        )


def check_margin(margin: Any) -> None:
    """Check that it is a margin that the pair loss takes."""
    is_number = isinstance(margin, numbers.Real) and not isinstance(margin, bool)
    if not is_number or not (math.isfinite(margin) and 0.0 <= margin < 1.0):
        raise ValueError(f"`margin` must be a number in [0, 1). Received: margin={margin}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
