"""Read the labels of the Semantic Boundaries Dataset from its MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.checkpoints.matlab_struct import MatlabStruct
from keras_rpe.data.class_names import VOC_CLASSES
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_maps import VOID
from keras_rpe.data.matlab_variable import matlab_variable


def read_sbd(instances: str | Path, classes: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the instances and the classes of an image of SBD.

    Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011: `inst/NAME.mat` holds
    `GTinst` with the fields `Segmentation`, the instance of each pixel, and `Categories`, the class
    of each instance; `cls/NAME.mat` holds `GTcls` with the field `Segmentation`, the class of each
    pixel. Classes are those of PASCAL VOC.

    Args:
        instances: The file in `inst`.
        classes: The file in `cls`.

    Returns:
        The instances, int32 (H, W), 0 for the background and ids from 1; and the classes, int32
        (H, W) likewise. Both are `VOID` (-1) where the two files disagree on the class, and where
        they say 255.

    Raises:
        ImageFileError: If a file is missing or damaged, lacks a field, or has an instance without
            category or a class that is unknown, or the sizes differ.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import scipy.io
        >>> from keras_rpe.data import read_sbd
        >>> inst = {"Segmentation": np.array([[0, 1, 2]], "uint8"), "Categories": [[8], [12]]}
        >>> cls = {"Segmentation": np.array([[0, 8, 12]], "uint8")}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scipy.io.savemat(folder + "/inst.mat", {"GTinst": inst})
        ...     scipy.io.savemat(folder + "/cls.mat", {"GTcls": cls})
        ...     instances, classes = read_sbd(folder + "/inst.mat", folder + "/cls.mat")
        >>> instances.tolist(), classes.tolist()
        ([[0, 1, 2]], [[0, 8, 12]])
    """
    instance_fields = _struct(instances, "GTinst")
    ids = _integers(instances, "GTinst.Segmentation", instance_fields.get("Segmentation"))
    kinds = _integers(classes, "GTcls.Segmentation", _struct(classes, "GTcls").get("Segmentation"))
    categories = _integers(instances, "GTinst.Categories", instance_fields.get("Categories"))
    if ids.shape != kinds.shape:
        raise ImageFileError(
            f"{classes} has {kinds.shape[0]} x {kinds.shape[1]} pixels, but {instances} has "
            f"{ids.shape[0]} x {ids.shape[1]}."
        )
    void = (ids == 255) | (kinds == 255)
    ids, kinds = np.where(void, 0, ids), np.where(void, 0, kinds)
    of_instance = np.concatenate([[0], categories.ravel()])
    if ids.max() >= len(of_instance):
        raise ImageFileError(
            f"{instances} has the instance {ids.max()}, but categories of {len(of_instance) - 1}."
        )
    for file, found in ((instances, categories), (classes, kinds)):
        if found.size and found.max() > len(VOC_CLASSES):
            raise ImageFileError(
                f"{file} has the class {found.max()}, above the {len(VOC_CLASSES)} of PASCAL VOC."
            )
    lacking = np.flatnonzero((of_instance == 0) & (np.arange(len(of_instance)) > 0))
    if len(lacking):
        raise ImageFileError(f"{instances} has no class for the instance {lacking[0]}.")
    void |= of_instance[ids] != kinds
    return np.where(void, VOID, ids), np.where(void, VOID, kinds)


def _struct(path: str | Path, name: str) -> MatlabStruct:
    value = matlab_variable(path, name)
    if not isinstance(value, MatlabStruct) or value.size != 1:
        raise ImageFileError(f"{path} has a {name} that is not one struct.")
    return value


def _integers(path: str | Path, name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.ndim != 2:
        raise ImageFileError(f"{path} has no {name} of two dimensions.")
    if not value.size and name.endswith("Segmentation"):
        raise ImageFileError(f"{path} has an empty {name}.")
    if value.size:
        low, high = value.min(), value.max()  # a NaN makes both NaN, which fails the comparison
        fits = 0 <= low <= high <= 65535
        if not fits or (value.dtype.kind == "f" and (value != np.floor(value)).any()):
            raise ImageFileError(f"{path} has a {name} that is not of whole numbers to 65535.")
    return value.astype(np.int32)
