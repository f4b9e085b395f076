"""A convolution with the normalisation after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class ConvUnit:
    """A convolution and the normalisation after it.

    Attributes:
        name: Name of the convolution.
        shape: Shape of its filters, `(H, W, in, out)`.
        source: Number of the place in the graph that it takes.
        output: Number of the place that it gives.
        before: Product of the strides up to its input.
        after: The same with its own stride.
        conv: The layer of the convolution.
        norm: The layer of the normalisation, if there is one.

    Example:
        >>> from keras_rpe.models.backbones.conv_unit import ConvUnit
        >>> ConvUnit("conv1", (3, 3, 3, 8), 0, 1, before=1, after=2, conv=None).norm is None
        True
    """

    name: str
    shape: tuple[int, ...]
    source: int
    output: int
    before: int
    after: int
    conv: Any
    norm: Any = None
