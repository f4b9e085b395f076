"""Labelled images of digits from an .npz file."""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.damage import DAMAGE
from keras_rpe.checkpoints.file_names import shortened
from keras_rpe.checkpoints.reading_budget import ReadingBudget
from keras_rpe.data.digit_scene import DIGIT
from keras_rpe.data.image_file_error import ImageFileError

# What zipfile and NumPy's parser of headers raise besides.
_DAMAGE: tuple[type[Exception], ...] = (
    *DAMAGE,
    zipfile.BadZipFile,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
)
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_SHOWN = 6


def read_digit_file(path: str | Path, split: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Read images and labels of digits.

    The file has the arrays `x_train`, `y_train`, `x_test` and `y_test`, as the mnist.npz of Keras,
    or `x` and `y`; others are passed over. Nothing is unpickled, and at most 512 MiB are read.

    Args:
        path: The file, as `numpy.savez` or `numpy.savez_compressed` write it.
        split: "train" or "test".

    Returns:
        The images, uint8 (N, 28, 28); their labels, integers (N,); and whether they are those of
        the split alone, which `x` and `y` are not.

    Raises:
        ImageFileError: If the file is missing, damaged or of another kind, has no such arrays, or
            they are pickled or of other shapes or types.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from keras_rpe.data.digit_file import read_digit_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = folder + "/digits.npz"
        ...     np.savez(path, x=np.zeros((2, 28, 28), "uint8"), y=[4, 2])
        ...     x, y, of_split = read_digit_file(path, "train")
        >>> x.shape, y.tolist(), of_split
        ((2, 28, 28), [4, 2], False)
    """
    path = Path(path)
    if path.is_dir():
        raise ImageFileError(f"{path} is a folder, not an .npz file.")
    if not path.is_file():
        raise ImageFileError(f"{path} does not exist.")
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                images, labels = _names(archive, split)
                budget = ReadingBudget(os.fstat(file.fileno()).st_size)
                x = _array(archive, images, budget, (DIGIT, DIGIT), "u")
                y = _array(archive, labels, budget, (), "ui")
        except _DAMAGE as error:
            reason = str(error) if isinstance(error, CheckpointError) else "it is damaged"
            raise ImageFileError(f"{path} cannot be read as an .npz file: {reason}.") from None
    if len(x) != len(y):
        raise ImageFileError(
            f"{path} has {len(x)} images in {images}, but {len(y)} labels in {labels}."
        )
    return x, y, images != "x"


def _names(archive: zipfile.ZipFile, split: str) -> tuple[str, str]:
    held = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    for names in ((f"x_{split}", f"y_{split}"), ("x", "y")):
        if set(names) <= set(held):
            return names
    shown = ", ".join(map(shortened, held[:_SHOWN])) + (", ..." if len(held) > _SHOWN else "")
    raise CheckpointError(
        f"it has neither x_{split} and y_{split} nor x and y, but {shown or 'no array'}"
    )


def _array(
    archive: zipfile.ZipFile, name: str, budget: ReadingBudget, rest: tuple[int, ...], kinds: str
) -> np.ndarray:
    """Read one array, whose shape and size are compared with what is accepted before."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in _COMPRESSIONS or info.flag_bits & 1:
        raise CheckpointError(f"its array {name} is encrypted, or compressed in an unknown way")
    with archive.open(info) as stream:
        shape, fortran_order, dtype = _header(stream)
        if dtype.hasobject:
            raise CheckpointError(f"its array {name} is pickled, and nothing is unpickled here")
        if dtype.kind not in kinds or (rest and dtype != np.uint8):
            wanted = "uint8" if rest else "whole numbers"
            raise CheckpointError(f"its array {name} is of {dtype}, not of {wanted}")
        if len(shape) != 1 + len(rest) or shape[1:] != rest or shape[0] < 1:
            wanted = f"(N, {rest[0]}, {rest[1]})" if rest else "(N,)"
            raise CheckpointError(f"its array {name} has the shape {shape}, not {wanted}, N from 1")
        size = math.prod(shape) * dtype.itemsize
        budget.take_bytes(size)
        # One byte more than there should be: zipfile compares the check sum at the end only.
        content = stream.read(size + 1)
    if len(content) != size:
        raise CheckpointError(f"its array {name} is not as long as its header says")
    values = np.frombuffer(content, dtype)
    return values.reshape(shape, order="F" if fortran_order else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise CheckpointError(f"its arrays are of version {version[0]}.{version[1]}, not 1.0 or 2.0")
