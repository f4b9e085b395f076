"""What the readers of checkpoints share: their error, and the report of a conversion."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Shape = tuple[int, ...]

DAMAGE: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""The errors that malformed bytes cause in readers that run nothing of what they read."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, of another kind, refused as unsafe, or does not fit the network."""


@contextmanager
def one_sentence(path: Path, what: str, *damage: type[Exception]) -> Iterator[None]:
    """Refuse what is not a file, and say in one sentence why another cannot be read."""
    try:
        # Anything else, like a pipe, could block.
        if not path.is_file():
            raise CheckpointError("is not a file")
        yield
        return
    except CheckpointError as error:
        reason = str(error)
    except MemoryError:
        reason = "needs more memory than there is"
    except (*DAMAGE, *damage):
        reason = "is damaged, or holds what no such file needs"
    raise CheckpointError(
        f"`path` must be {what}. Received: {str(path)!r}, which {reason}"
    ) from None


def shortened(name: str) -> str:
    """Quote a name from a file for a message: ASCII, one line, at most 80 characters."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Widen bfloat16, given as uint16: it is the upper half of the bits of a float32."""
    wide = np.array(bits, dtype=np.uint32, order="C")
    wide <<= 16
    return wide.view(np.float32)


@dataclass
class ConversionReport:
    """Every name of a checkpoint and of a network, matched or not.

    Attributes:
        matched: Pairs of a weight of the network and the array of the checkpoint that it got, with
            the shape of the weight.
        unmatched_arrays: Arrays of the checkpoint that no weight took, with their shapes.
        unmatched_weights: Weights of the network that kept their values, with their shapes.

    Example:
        >>> from keras_rpe.checkpoints import ConversionReport
        >>> report = ConversionReport()
        >>> report.matched.append(("conv1/kernel", "conv1.weight", (3, 3, 3, 8)))
        >>> report.unmatched_arrays.append(("fc.weight", (10, 8)))
        >>> print(report)
        1 weight matched, 0 left as they were, 1 array of the checkpoint unused
          matched    conv1/kernel (3, 3, 3, 8) <- conv1.weight
          unused     fc.weight (10, 8)
    """

    matched: list[tuple[str, str, Shape]] = field(default_factory=list)
    unmatched_arrays: list[tuple[str, Shape]] = field(default_factory=list)
    unmatched_weights: list[tuple[str, Shape]] = field(default_factory=list)

    def summary(self) -> str:
        """One line with the counts."""
        arrays = len(self.unmatched_arrays)
        return (
            f"{len(self.matched)} weight{'' if len(self.matched) == 1 else 's'} matched, "
            f"{len(self.unmatched_weights)} left as they were, "
            f"{arrays} array{'' if arrays == 1 else 's'} of the checkpoint unused"
        )

    def __str__(self) -> str:
        lines = [self.summary()]
        lines += [
            f"  matched    {weight} {shape} <- {name}" for weight, name, shape in self.matched
        ]
        lines += [f"  unchanged  {weight} {shape}" for weight, shape in self.unmatched_weights]
        lines += [f"  unused     {name} {shape}" for name, shape in self.unmatched_arrays]
        return "\n".join(lines)
