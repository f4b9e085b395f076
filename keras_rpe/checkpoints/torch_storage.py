"""A storage of a torch file: the flat values that tensors are views of."""

from __future__ import annotations

from dataclasses import dataclass

from keras_rpe.checkpoints.torch_dtype import TorchDtype


@dataclass(frozen=True)
class TorchStorage:
    """A range of bytes of the file: its key, the type and the count of its values.

    Example:
        >>> from keras_rpe.checkpoints.torch_dtype import TorchDtype
        >>> from keras_rpe.checkpoints.torch_storage import TorchStorage
        >>> TorchStorage("0", TorchDtype("float32"), 6).size
        24
    """

    key: str
    dtype: TorchDtype
    count: int

    @property
    def size(self) -> int:
        """The length in bytes."""
        return self.count * self.dtype.itemsize
