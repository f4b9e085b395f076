"""The types of numbers in torch files."""

from __future__ import annotations

from dataclasses import dataclass

# How NumPy reads them; bfloat16 and bool are converted then.
DTYPES = {
    "float16": "f2",
    "bfloat16": "u2",
    "float32": "f4",
    "float64": "f8",
    "complex64": "c8",
    "complex128": "c16",
    "int8": "i1",
    "int16": "i2",
    "int32": "i4",
    "int64": "i8",
    "uint8": "u1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "bool": "u1",
}


@dataclass(frozen=True)
class TorchDtype:
    """The type of a tensor or of a storage, by its name in torch; a key of `DTYPES`.

    Example:
        >>> from keras_rpe.checkpoints.torch_dtype import TorchDtype
        >>> TorchDtype("bfloat16").itemsize
        2
    """

    name: str

    @property
    def itemsize(self) -> int:
        """The bytes of a value."""
        return int(DTYPES[self.name][1:])
