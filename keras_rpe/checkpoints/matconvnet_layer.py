"""A layer of a MatConvNet network."""

from __future__ import annotations

from dataclasses import dataclass, field

Option = str | float | tuple[float, ...]


@dataclass
class MatConvNetLayer:
    """A row of the layer table of a DagNN.

    Attributes:
        name: Its name.
        type: Class of its block, such as "dagnn.Conv".
        inputs: Variables that it takes.
        outputs: Variables that it gives.
        params: Names of its parameters, in the order that its class gives them a meaning.
        block: Options of the block: texts, numbers, and tuples of numbers; others are left out.

    Example:
        >>> from keras_rpe.checkpoints import MatConvNetLayer
        >>> layer = MatConvNetLayer("conv1", "dagnn.Conv", ["data"], ["x1"], ["conv1_f"])
        >>> layer.kind
        'Conv'
    """

    name: str
    type: str
    inputs: list[str]
    outputs: list[str]
    params: list[str] = field(default_factory=list)
    block: dict[str, Option] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The type without the name of its package."""
        return self.type.rpartition(".")[2]
