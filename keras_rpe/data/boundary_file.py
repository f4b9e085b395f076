"""Read the boundaries that several people drew into one image, from a MATLAB file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rpe.checkpoints.matlab_struct import MatlabStruct
from keras_rpe.data.image_file import MIN_SIDE
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.matlab_variable import matlab_variable

MAX_ANNOTATORS = 100
"""The largest number of annotators that a file may have."""

_VARIABLE = "groundTruth"
_MAX_SEGMENT = 65535


class BoundaryAnnotation(NamedTuple):
    """What one annotator drew into an image.

    Attributes:
        segmentation: uint16 (H, W), the number of the segment that each pixel belongs to.
        boundaries: bool (H, W), true at the pixels of the thin lines between segments.
    """

    segmentation: np.ndarray
    boundaries: np.ndarray


def read_boundaries(path: str | Path) -> list[BoundaryAnnotation]:
    """Read the annotations of an image in the format of BSDS500.

    The file is one of MATLAB's version 5 (`-v6` or `-v7`) with the variable `groundTruth`: a
    cell of structs, or a struct array, with the fields `Segmentation` and `Boundaries`, one
    element for each annotator. Arbeláez et al., "Contour Detection and Hierarchical Image
    Segmentation", PAMI 2011. Nothing of the file is executed, and at most 256 MiB are read.

    Args:
        path: The file.

    Returns:
        The annotations, one or more, all of one size.

    Raises:
        ImageFileError: If the file is missing, damaged or of another kind, has no annotator, or
            an annotator's maps are missing, not of whole numbers, of another size than the
            others, smaller than 8 pixels on a side, or without any boundary.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import scipy.io
        >>> from keras_rpe.data import read_boundaries
        >>> halves = np.repeat([[1, 2]], 4, axis=1).repeat(8, axis=0).astype("uint16")
        >>> drawn = np.zeros((8, 8), "uint8")
        >>> drawn[:, 3] = 1
        >>> truth = np.empty((1, 1), object)
        >>> truth[0, 0] = {"Segmentation": halves, "Boundaries": drawn}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scipy.io.savemat(folder + "/plane.mat", {"groundTruth": truth})
        ...     annotations = read_boundaries(folder + "/plane.mat")
        >>> len(annotations), annotations[0].boundaries.sum(axis=0).tolist()
        (1, [0, 0, 0, 8, 0, 0, 0, 0])
    """
    path = Path(path)
    annotators = _annotators(path, matlab_variable(path, _VARIABLE))
    annotations: list[BoundaryAnnotation] = []
    for number, fields in enumerate(annotators, start=1):
        who = f"annotator {number} of {len(annotators)}"
        segmentation, boundaries = (
            _whole_numbers(path, who, name, fields.get(name))
            for name in ("Segmentation", "Boundaries")
        )
        size = annotations[0].boundaries.shape if annotations else segmentation.shape
        for name, values in (("Segmentation", segmentation), ("Boundaries", boundaries)):
            if values.shape != size:
                raise ImageFileError(
                    f"{path} has a {name} of {_size(values.shape)} pixels for {who}, but the "
                    f"map before it has {_size(size)}."
                )
        if not boundaries.any():
            raise ImageFileError(f"{path} has no boundary at all for {who}.")
        annotations.append(BoundaryAnnotation(segmentation, boundaries != 0))
    return annotations


def _annotators(path: Path, value: Any) -> list[dict[str, Any]]:
    """The fields of each annotator, from a cell of structs or from a struct array."""
    structs = [value] if isinstance(value, MatlabStruct) else value
    empty = isinstance(value, np.ndarray) and value.size == 0
    whole = isinstance(structs, list) and all(isinstance(one, MatlabStruct) for one in structs)
    if not (whole or empty):
        raise ImageFileError(f"{path} has a {_VARIABLE} that is not a cell of structs.")
    annotators = [] if empty else [fields for one in structs for fields in one.elements()]
    if not 1 <= len(annotators) <= MAX_ANNOTATORS:
        raise ImageFileError(
            f"{path} has {len(annotators)} annotators in {_VARIABLE}, not 1 to {MAX_ANNOTATORS}."
        )
    return annotators


def _whole_numbers(path: Path, who: str, name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ImageFileError(f"{path} has no {name} for {who}.")
    if value.ndim != 2 or min(value.shape) < MIN_SIDE:
        raise ImageFileError(
            f"{path} has a {name} of {_size(value.shape)} pixels for {who}, not at least "
            f"{MIN_SIDE} x {MIN_SIDE}."
        )
    low, high = value.min(), value.max()  # a NaN makes both NaN, which fails the comparison
    fits = 0 <= low <= high <= _MAX_SEGMENT
    if not fits or (value.dtype.kind == "f" and (value != np.floor(value)).any()):
        raise ImageFileError(
            f"{path} has a {name} for {who} that is not of whole numbers from 0 to {_MAX_SEGMENT}."
        )
    return np.ascontiguousarray(value, dtype=np.uint16)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
