"""Masks of one image, as a label map or as a stack, in one form: rows of a sparse matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array


def check_masks(masks: npt.ArrayLike) -> np.ndarray:
    """Return an integer label map (H, W) or a boolean stack (n, H, W), or raise `ValueError`."""
    try:
        array = np.asarray(masks)
    except ValueError:
        array = np.empty(0)
    is_map = array.ndim == 2 and np.issubdtype(array.dtype, np.integer)
    if not is_map and not (array.ndim == 3 and array.dtype == bool):
        raise ValueError(
            "`masks` must be an integer label map (H, W) or a boolean stack (n, H, W). "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    return array


def check_table(name: str, values: npt.ArrayLike, kinds: str, what: str) -> np.ndarray:
    """Return an array (n,) whose dtype is of one of `kinds`, or raise `ValueError`."""
    array = np.asarray(values)
    if not array.size and array.ndim == 1:  # an empty list is float64 to NumPy
        array = array.astype({"b": bool, "i": int, "f": float}[kinds[0]])
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise ValueError(
            f"`{name}` must hold {what} for each mask. "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    return array


def mask_ids(masks: np.ndarray, tables: dict[str, Any], ignore_label: int | None) -> np.ndarray:
    """The ids of the masks, ascending, or `ValueError` where a table has another length.

    Args:
        masks: as `check_masks` returns them.
        tables: arrays (n,) or None by their names. With a table the ids of a map are 1..n.
        ignore_label: label of void pixels of a map, which is no id, or None.

    Returns:
        int64 array (n,).
    """
    lengths = {name: len(table) for name, table in tables.items() if table is not None}
    if masks.ndim == 3:
        ids = np.arange(1, len(masks) + 1)
    else:
        found = np.unique(masks)
        found = found[(found != 0) & (found != ignore_label)].astype(np.int64)
        if found.size and found[0] < 0:
            raise ValueError(
                "`masks` must hold 0 (background) and positive ids. "
                f"Received: a smallest value of {found[0]}"
            )
        if not lengths:
            return found
        name, length = next(iter(lengths.items()))
        if found.size and found[-1] > length:
            raise ValueError(
                f"`{name}` must hold a value for each id of `masks`, that of id k at index k - 1. "
                f"Received: {length} values and an id of {found[-1]}"
            )
        ids = np.arange(1, length + 1)
    for name, length in lengths.items():
        if length != len(ids):
            raise ValueError(
                f"`{name}` must hold one value for each of {len(ids)} masks. Received: {length}"
            )
    return ids


def ids_and_classes(
    masks: np.ndarray, tables: dict[str, Any], ignore_label: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The ids of the masks, and their classes from a table or a map, or `ValueError`.

    Args:
        masks: as `check_masks` returns them.
        tables: as `mask_ids` takes them; `classes`, integers (n,) or a class map (H, W), as given.
        ignore_label: label of void pixels of a map, which is no id, or None.

    Returns:
        int64 array (n,), and the classes (n,) or None.
    """
    classes = None if tables["classes"] is None else np.asarray(tables["classes"])
    as_map = classes is not None and classes.ndim == 2
    if classes is not None and not as_map:
        classes = check_table("classes", classes, "iu", "an integer")
    ids = mask_ids(masks, {**tables, "classes": None if as_map else classes}, ignore_label)
    if masks.ndim == 2 and ignore_label in ids:
        raise ValueError(
            f"`ignore_label` must not be one of the ids 1 to {len(ids)} of the masks. "
            f"Received: ignore_label={ignore_label}"
        )
    if classes is not None and as_map:
        classes = mask_classes(classes, masks, ids)
    if classes is not None and classes.size and classes.min() < 1:
        raise ValueError(
            "`classes` must be from 1 inside the masks, 0 being the background. "
            f"Received: a class of {classes.min()}"
        )
    return ids, classes


def mask_classes(classes: np.ndarray, masks: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Look up the class of each mask in a map (H, W), or raise `ValueError`."""
    if classes.shape != masks.shape[-2:]:
        raise ValueError(
            "`classes` must hold one class for each mask, or be a map of the shape of the image. "
            f"Received: shape {classes.shape} for masks of {masks.shape[-2:]}"
        )
    rows = mask_rows(masks, ids)
    table = np.zeros(len(ids), np.int64)
    for index in np.flatnonzero(np.diff(rows.indptr)):
        found = np.unique(classes.ravel()[rows.indices[slice(*rows.indptr[index : index + 2])]])
        if len(found) > 1:
            raise ValueError(
                "`classes` must have a single class inside each mask. "
                f"Received: classes {found.tolist()} inside mask {ids[index]}"
            )
        table[index] = found[0]
    return table


def mask_rows(masks: np.ndarray, ids: np.ndarray) -> csr_array:
    """The pixels of each mask as ones in a row of an int32 matrix (n, H * W)."""
    shape = (len(ids), masks.shape[-2] * masks.shape[-1])
    if masks.ndim == 3:
        row, pixels = np.divmod(np.flatnonzero(masks), max(shape[1], 1))
    else:
        labels = masks.ravel()
        pixels = np.flatnonzero(labels)
        labels = labels[pixels].astype(np.int64)
        row = np.searchsorted(ids, labels)
        known = np.append(ids, 0)[row] == labels  # void pixels belong to no mask
        row, pixels = row[known], pixels[known]
        order = np.argsort(row, kind="stable")
        row, pixels = row[order], pixels[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(ids)))])
    return csr_array((np.ones(len(pixels), np.int32), pixels, starts), shape=shape)
