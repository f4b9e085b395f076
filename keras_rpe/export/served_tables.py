"""Whether the outputs of an exported model, perhaps on a server, are what they should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# Rank of each table of a batch of one: those of instances, and those of proposals.
TABLES = {"labels": 3, "scores": 2, "boxes": 3, "classes": 2, "num_instances": 1}
PROPOSAL_TABLES = ("label_maps", "scores", "scales", "ids", "boxes", "num_proposals")
_MAX_SCALES = 32
# All outputs, and how many numbers a pixel may have in each.
OUTPUTS = {
    **dict.fromkeys([*TABLES, *PROPOSAL_TABLES, "boundaries", "thin"], 1),
    "label_maps": _MAX_SCALES,
}


def checked_tables(
    tables: Mapping[str, Any], height: int, width: int, source: str
) -> dict[str, np.ndarray]:
    """Let the instances of one image through if that is what they are.

    Args:
        tables: Arrays or nested lists by name, of a batch of one.
        height: Height of the image.
        width: Its width.
        source: Where they come from, for the message.

    Returns:
        `labels`, int32 `(1, H, W)`; `scores`, float32 `(1, n)`; `boxes`, int32 `(1, n, 4)`;
        `classes`, int32 `(1, n)`; `num_instances`, int32 `(1,)`.

    Raises:
        ValueError: If one is missing, or of another shape, data type or range of values.

    Example:
        >>> from keras_rpe.export.served_tables import checked_tables
        >>> checked_tables({"scores": [[0.5]]}, 8, 8, "model.onnx")
        Traceback (most recent call last):
        ...
        ValueError: model.onnx must give the labels, scores, boxes, classes, num_instances of one
        image of 8 x 8 pixels, like the exports of keras_rpe. Received: no labels
    """
    try:
        arrays = {name: _table(tables, name) for name in TABLES}
        rows = _rows(arrays)
        expected = {
            "labels": (1, height, width),
            "scores": (1, rows),
            "boxes": (1, rows, 4),
            "classes": (1, rows),
            "num_instances": (1,),
        }
        _check_shapes(arrays, expected)
        count = int(arrays["num_instances"][0])
        labels = arrays["labels"]
        if not 0 <= count <= rows:
            raise ValueError(f"num_instances={count}")
        if labels.min() < 0 or labels.max() > count:
            raise ValueError(f"labels from {labels.min()} to {labels.max()} of {count} instances")
    except ValueError as error:
        raise _other(source, TABLES, height, width, error) from None
    return arrays


def checked_proposals(
    tables: Mapping[str, Any], height: int, width: int, source: str
) -> dict[str, np.ndarray]:
    """Let the proposals for one image through if that is what they are.

    Args:
        tables: As in `checked_tables`.
        height: Height of the image.
        width: Its width.
        source: Where they come from, for the message.

    Returns:
        `label_maps`, int32 `(1, H, W, scales)`; `scores`, float32 `(1, n)`; `scales` and `ids`,
        int32 `(1, n)`; `boxes`, int32 `(1, n, 4)`; `num_proposals`, int32 `(1,)`.

    Raises:
        ValueError: If one is missing, or of another shape, data type or range of values.
    """
    try:
        arrays = {name: _table(tables, name) for name in PROPOSAL_TABLES}
        rows = _rows(arrays)
        maps = arrays["label_maps"].shape[-1] if arrays["label_maps"].ndim == 4 else 0
        expected = {
            "label_maps": (1, height, width, min(maps, _MAX_SCALES)),
            "scores": (1, rows),
            "scales": (1, rows),
            "ids": (1, rows),
            "boxes": (1, rows, 4),
            "num_proposals": (1,),
        }
        _check_shapes(arrays, expected)
        count = int(arrays["num_proposals"][0])
        if not 0 <= count <= rows:
            raise ValueError(f"num_proposals={count}")
        scales, ids = arrays["scales"][0, :count], arrays["ids"][0, :count]
        if count and not (scales.min() >= 0 and scales.max() < maps):
            raise ValueError(f"scales from {scales.min()} to {scales.max()} of {maps} label maps")
        if count and ids.min() < 1:
            raise ValueError(f"ids from {ids.min()}")
    except ValueError as error:
        raise _other(source, PROPOSAL_TABLES, height, width, error) from None
    return arrays


def checked_classes(tables: Mapping[str, Any], height: int, width: int, source: str) -> np.ndarray:
    """Let the class map of one image through if that is what it is.

    Args:
        tables: As in `checked_tables`.
        height: Height of the image.
        width: Its width.
        source: Where it comes from, for the message.

    Returns:
        int32 `(H, W)`, from 0.

    Raises:
        ValueError: If it is missing, or of another shape, data type or range of values.
    """
    try:
        arrays = {"classes": _table(tables, "classes")}
        _check_shapes(arrays, {"classes": (1, height, width)})
        if arrays["classes"].min() < 0:
            raise ValueError(f"classes from {arrays['classes'].min()}")
    except ValueError as error:
        raise _other(source, ["classes"], height, width, error) from None
    return arrays["classes"][0]


def _other(
    source: str, names: Iterable[str], height: int, width: int, error: ValueError
) -> ValueError:
    return ValueError(
        f"{source} must give the {', '.join(names)} of one image of {height} x {width} "
        f"pixels, like the exports of keras_rpe. Received: {error}"
    )


def _table(tables: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in tables:
        raise ValueError(f"no {name}")
    try:
        array = np.asarray(tables[name])
    except ValueError:
        raise ValueError(f"{name} that are no array") from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} of dtype={array.dtype}")
    with np.errstate(all="ignore"):
        result = array.astype(np.float32 if name == "scores" else np.int32)
        whole = name == "scores" or np.array_equal(result, array)
    if not whole or not np.isfinite(result).all():
        raise ValueError(f"{name} with values beyond its range")
    return result


def _rows(arrays: Mapping[str, np.ndarray]) -> int:
    return arrays["scores"].shape[-1] if arrays["scores"].ndim == 2 else 0


def _check_shapes(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} of shape={arrays[name].shape}")
