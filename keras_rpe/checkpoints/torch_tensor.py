"""A tensor of a torch file: where its values lie in a storage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from keras_rpe.checkpoints.bfloat16 import bfloat16_to_float32
from keras_rpe.checkpoints.report import CheckpointError
from keras_rpe.checkpoints.torch_dtype import DTYPES, TorchDtype
from keras_rpe.checkpoints.torch_storage import TorchStorage

MAX_DIMENSIONS = 32


@dataclass(frozen=True)
class TorchTensor:
    """A strided view of a storage; offset and strides count values.

    Raises:
        CheckpointError: If the view reaches out of the storage.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.checkpoints.torch_dtype import TorchDtype
        >>> from keras_rpe.checkpoints.torch_storage import TorchStorage
        >>> from keras_rpe.checkpoints.torch_tensor import TorchTensor
        >>> storage = TorchStorage("0", TorchDtype("float32"), 6)
        >>> transposed = TorchTensor(storage, storage.dtype, 0, (3, 2), (1, 3))
        >>> transposed.values(np.arange(6, dtype="<f4").tobytes(), "little").tolist()
        [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """

    storage: TorchStorage
    dtype: TorchDtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > MAX_DIMENSIONS:
            raise CheckpointError("has a tensor whose sizes and strides do not fit each other")
        if not all(0 <= number < 2**62 for number in numbers):
            raise CheckpointError("has a tensor with a negative or absurd size, stride or offset")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides))
        if 0 not in self.shape and (last + 1) * self.dtype.itemsize > self.storage.size:
            raise CheckpointError("has a tensor that reaches out of its storage")

    @property
    def size(self) -> int:
        """The bytes of the array that `values` makes; with a size of zero, as if it were one."""
        itemsize = 4 if self.dtype.name == "bfloat16" else self.dtype.itemsize
        return math.prod(max(n, 1) for n in self.shape) * itemsize

    def values(self, content: bytes | bytearray, byteorder: str) -> np.ndarray:
        """Copy the values out of the content of the storage.

        Args:
            content: The bytes of the storage.
            byteorder: "little" or "big", the order of these bytes.

        Returns:
            A contiguous array in the order of the machine; bfloat16 becomes float32.
        """
        dtype = np.dtype(f"{'<' if byteorder == 'little' else '>'}{DTYPES[self.dtype.name]}")
        if 0 in self.shape:
            view = np.empty(self.shape, dtype)
        else:
            strides = tuple(stride * dtype.itemsize for stride in self.strides)
            view = np.ndarray(self.shape, dtype, content, self.offset * dtype.itemsize, strides)
        if self.dtype.name == "bool":
            return view.astype(bool, order="C")
        if self.dtype.name == "bfloat16":
            return bfloat16_to_float32(view)
        return view.astype(dtype.newbyteorder("="), order="C")
