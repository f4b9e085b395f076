"""Read one variable of a MATLAB file of labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from keras_rpe.checkpoints.checkpoint_error import CheckpointError
from keras_rpe.checkpoints.damage import DAMAGE
from keras_rpe.checkpoints.matlab5_file import read_matlab5
from keras_rpe.checkpoints.reading_budget import ReadingBudget
from keras_rpe.data.image_file_error import ImageFileError

_MAX_BYTES = 256 * 2**20
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512


def matlab_variable(path: str | Path, name: str) -> Any:
    """Read a variable of a file of MATLAB's version 5 (`-v6` or `-v7`).

    Nothing of the file is executed, and at most 256 MiB are read.

    Args:
        path: The file.
        name: Name of the variable.

    Returns:
        Its value: an array, a text, a list for a cell, or a `MatlabStruct`.

    Raises:
        ImageFileError: If the file is missing, damaged or of another kind, or has no such
            variable.

    Example:
        >>> import tempfile
        >>> import scipy.io
        >>> from keras_rpe.data.matlab_variable import matlab_variable
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scipy.io.savemat(folder + "/a.mat", {"x": [[1, 2]]})
        ...     matlab_variable(folder + "/a.mat", "x").tolist()
        [[1, 2]]
    """
    path = Path(path)
    if path.is_dir():
        raise ImageFileError(f"{path} is a folder, not a MATLAB file.")
    if not path.is_file():
        raise ImageFileError(f"{path} does not exist.")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise CheckpointError("it is empty (0 bytes)")
            start = file.read(_USER_BLOCK + len(_HDF5_SIGNATURE))
            if _HDF5_SIGNATURE in (start[: len(_HDF5_SIGNATURE)], start[_USER_BLOCK:]):
                raise CheckpointError("it is one of version 7.3: save it with -v7")
            variables = read_matlab5(file, size, (name,), ReadingBudget(size, _MAX_BYTES))
    except DAMAGE as error:
        reason = str(error) if isinstance(error, CheckpointError) else "it is damaged"
        raise ImageFileError(f"{path} cannot be read as a MATLAB file: {reason}.") from None
    if name not in variables:
        raise ImageFileError(f"{path} has no variable {name}.")
    return variables[name]
