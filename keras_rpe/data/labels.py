"""What numbers in label maps stand for: instances, classes and their names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.data.images import ImageFileError

VOID = -1
"""The number of void pixels in the maps that datasets give, as in `ignore_label=VOID`.

Void pixels are neither an object nor background, and no loss and no metric counts them. Files have
other numbers for them, such as 255.
"""

_COUNTABLE = 2**22


def unique_codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the integers that occur: the numbers, the values in order, and their counts."""
    highest = int(values.max())
    if highest >= _COUNTABLE or values.min() < 0:
        found, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
        return codes.reshape(values.shape), found, counts
    # Counting is many times faster than the sort inside np.unique.
    counts = np.bincount(values.ravel(), minlength=highest + 1)
    found = np.flatnonzero(counts)
    number = np.zeros(highest + 1, np.int64)
    number[found] = np.arange(len(found))
    return number[values], found, counts[found]


def pair_codes(
    instances: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the pairs of instance and class that occur in two maps (H, W) of integers from -1.

    Returns the number of each pixel's pair (H, W), the sorted pairs (K, 2), and their counts (K,).
    """
    base = int(classes.max()) + 2
    keys = (instances.astype(np.int64) + 1) * base + (classes + 1)
    codes, found, counts = unique_codes(keys)
    return codes, np.stack([found // base - 1, found % base - 1], axis=1), counts


def agreed_maps(
    where: Any, instances: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Make a map of instances and a map of classes, both integers (H, W), agree.

    A pixel that is void in one map becomes void in both. An object has the class that most of its
    pixels have; its other pixels become void. Classes without an object, such as sky, stay.
    Raises `ImageFileError`, which names `where`, if the sizes differ or an object has no class.
    """
    if instances.shape != classes.shape:
        raise ImageFileError(
            f"{where} has instances of {size_text(instances.shape)} pixels, but classes of "
            f"{size_text(classes.shape)}."
        )
    codes, pairs, counts = pair_codes(instances, classes)
    void = (pairs == VOID).any(axis=1)
    objects = (pairs[:, 0] > 0) & ~void
    void |= objects  # except what most pixels of an object are
    classed = np.flatnonzero(objects & (pairs[:, 1] > 0))
    # The last of each object in this order is its largest pair; of equal ones, the lower class.
    order = classed[np.lexsort((-pairs[classed, 1], counts[classed], pairs[classed, 0]))]
    last = np.append(np.diff(pairs[order, 0]) != 0, True)[: len(order)]
    void[order[last]] = False
    lacking = np.setdiff1d(pairs[objects, 0], pairs[order, 0])
    if len(lacking):
        raise ImageFileError(f"{where} has no class for the object {lacking[0]}.")
    table = np.where(void[:, None], VOID, pairs).astype(np.int32)
    return table[:, 0][codes], table[:, 1][codes]


def size_text(shape: tuple[int, ...]) -> str:
    """A size as sentences have it, such as "20 x 30"."""
    return " x ".join(map(str, shape))


VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The 20 classes of PASCAL VOC; the first is number 1 in its files."""

_MAX_BYTES = 2**24
_MAX_NAMES = 10_000


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Read the names of classes from a JSON file.

    The file is a list of names, of which "background", where it is the first, is left out; a
    dictionary from numbers, 1 to their count, to names; or a dictionary with one of the two as
    `classes`.

    Args:
        path: The file.

    Returns:
        The names; the first is that of class 1.

    Raises:
        ImageFileError: If the file is missing, larger than 16 MiB, no JSON, or of another form,
            or two names are equal.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from keras_rpe.data import read_class_names
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "classes.json"
        ...     _ = path.write_text('{"2": "cat", "1": "dog"}')
        ...     read_class_names(path)
        ('dog', 'cat')
    """
    path = Path(path)
    value = read_json(path, _MAX_BYTES)
    if isinstance(value, dict) and "classes" in value:
        value = value["classes"]
    if isinstance(value, dict):
        numbers = [str(number) for number in range(1, len(value) + 1)]
        if set(numbers) != set(value):
            raise ImageFileError(f"{path} needs names of the classes 1 to {len(value)}.")
        value = [value[number] for number in numbers]
    if not (isinstance(value, list) and all(isinstance(one, str) and one for one in value)):
        raise ImageFileError(f"{path} needs a list of names, or a dictionary of them by number.")
    names = tuple(value[1:] if value and value[0] == "background" else value)
    if not 1 <= len(names) <= _MAX_NAMES:
        raise ImageFileError(f"{path} has {len(names)} names of classes, not 1 to {_MAX_NAMES}.")
    if len(set(names)) < len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise ImageFileError(f"{path} has the class {twice!r} twice.")
    return names


def read_json(path: Path, max_bytes: int) -> Any:
    """Read a JSON file; an `ImageFileError` where it is missing, too large or damaged."""
    if not path.is_file():
        raise ImageFileError(f"{path} does not exist, or is not a file.")
    size = path.stat().st_size
    if size > max_bytes:
        raise ImageFileError(f"{path} has {size} bytes, more than the {max_bytes} that are read.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ImageFileError(f"{path} cannot be read as JSON: {reason[:200]}.") from None


def class_numbers(
    where: Any, known: Sequence[str], class_names: Sequence[str] | None
) -> np.ndarray:
    """Make the table that numbers the classes of a file anew, int32 (len(known) + 2,).

    `class_names` are the classes to keep, numbered from 1 in this order (None keeps all); the
    others become background. The last entry of the table is for `VOID`. Raises `ValueError` if a
    name is unknown or comes twice.
    """
    chosen = known if class_names is None else class_names
    if isinstance(chosen, str) or not chosen or not all(isinstance(one, str) for one in chosen):
        raise ValueError(
            "`class_names` must be a list of at least one name. "
            f"Received: class_names={class_names!r}"
        )
    table = np.zeros(len(known) + 2, np.int32)
    table[-1] = VOID
    for number, name in enumerate(chosen, start=1):
        if name not in known:
            raise ValueError(
                f"`class_names` must be classes of {where}, such as {known[0]!r}. "
                f"Received: {name!r}"
            )
        if table[known.index(name) + 1]:
            raise ValueError(f"`class_names` must have each class once. Received: {name!r} twice")
        table[known.index(name) + 1] = number
    return table
