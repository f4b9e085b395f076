"""What a damaged file makes of a reader."""

from __future__ import annotations

import zlib

DAMAGE: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    zlib.error,
)
"""Errors that malformed bytes cause in the steps of a reader that runs nothing of the file."""
