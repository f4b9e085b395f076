"""Pairs of images and label images: found by name, checked together, split for validation.

A pair may have a third file, which holds the class of each pixel.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_rpe.data.image_file import (
    IMAGE_SUFFIXES,
    MIN_SIDE,
    check_label_header,
    read_image,
    read_labels,
)
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.image_header import read_header
from keras_rpe.data.label_folder_error import LabelFolderError

_SHOWN = 20
_THREADS = 4


class LabelPair(NamedTuple):
    """An image and its label image.

    Attributes:
        image: the image file, or None where a mask has no image.
        instances: the label file, or None where an image has no mask.
        name: the file name without its ending, which all share.
        classes: the file with the class of each pixel, or None where there is none.
    """

    image: Path | None
    instances: Path | None
    name: str
    classes: Path | None = None


def find_label_pairs(
    path: str | Path,
    images: str = "images/*",
    instances: str = "instances/*",
    classes: str | None = None,
) -> list[LabelPair]:
    """Pair the images of a folder with its label images by their names without ending.

    Args:
        path: the folder.
        images: a glob inside the folder that the images match.
        instances: a glob inside the folder that the label images match.
        classes: a glob inside the folder that images of each pixel's class match; None: none.

    Returns:
        One `LabelPair` per name, sorted by name; a file without its partner is listed with
        None in its place, for `check_label_pairs` to report.

    Raises:
        LabelFolderError: the folder does not exist, a glob matches no image file, or two files
            of one kind share a name.

    Example:
    >>> from pathlib import Path
    >>> from keras_rpe.data import find_label_pairs
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("images", "instances"):
    ...         (Path(folder) / part).mkdir()
    ...         (Path(folder) / part / "cell.png").touch()
    ...     [pair.name for pair in find_label_pairs(folder)]
    ['cell']
    """
    path = Path(path)
    if not path.is_dir():
        raise LabelFolderError(f"path needs an existing folder. Received: path={str(path)!r}")
    by_name: list[dict[str, Path]] = []
    for argument, pattern in (("images", images), ("instances", instances), ("classes", classes)):
        if pattern is None:
            by_name.append({})
            continue
        files = _files_by_name(path, argument, pattern)
        if not files:
            raise LabelFolderError(
                f"{path} holds no image files ({', '.join(IMAGE_SUFFIXES)}) that match "
                f"{argument}={pattern!r}."
            )
        by_name.append(files)
    found, labels, kinds = by_name
    names = sorted(found.keys() | labels.keys() | kinds.keys())
    return [LabelPair(found.get(one), labels.get(one), one, kinds.get(one)) for one in names]


def check_label_pairs(pairs: Sequence[LabelPair], classes: bool = False) -> None:
    """Check that every pair can be used, and report all that cannot in one error.

    Headers are read where they tell enough; pixels are read where a value can be wrong (float
    images, signed or 32-bit labels) or where a file looks cut short.

    Args:
        pairs: what `find_label_pairs` returned.
        classes: whether each pair needs its file of classes.

    Raises:
        LabelFolderError: a file is missing or unreadable, a mask differs from its image in
            size, or labels are negative or not whole numbers; the message names the first 20
            files with their reasons and counts the others.

    Example:
    >>> from pathlib import Path
    >>> from keras_rpe.data import LabelPair, check_label_pairs
    >>> check_label_pairs([LabelPair(Path("cell.png"), None, "cell")])
    Traceback (most recent call last):
    ...
    keras_rpe.data.label_folder_error.LabelFolderError: 1 of 1 image pairs cannot be used:
    cell.png: it has no mask.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = pool.map(partial(_problem, classes=classes), pairs)
        reasons = [reason for reason in problems if reason]
    if reasons:
        shown = "; ".join(reasons[:_SHOWN])
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        raise LabelFolderError(
            f"{len(reasons)} of {len(pairs)} image pairs cannot be used: {shown}{more}."
        )


def split_pairs(
    pairs: Sequence[LabelPair], validation_split: float, seed: int | None = None
) -> tuple[list[LabelPair], list[LabelPair]]:
    """Split pairs into training and validation by their names and the seed alone.

    The order of the pairs plays no part, so that two calls, on two machines too, agree.

    Args:
        pairs: at least two pairs.
        validation_split: the share of pairs for validation, between 0 and 1; at least one pair
            goes to each side.
        seed: another seed gives another split; None counts as 0.

    Returns:
        The training pairs and the validation pairs, each sorted by name.

    Raises:
        ValueError: the share is not between 0 and 1, or there are fewer than two pairs.

    Example:
    >>> from keras_rpe.data import LabelPair, split_pairs
    >>> pairs = [LabelPair(None, None, name) for name in "abcd"]
    >>> [len(part) for part in split_pairs(pairs, 0.25, seed=1)]
    [3, 1]
    """
    if not 0 < validation_split < 1:
        raise ValueError(
            "validation_split needs a number between 0 and 1. "
            f"Received: validation_split={validation_split}"
        )
    if len(pairs) < 2:
        raise ValueError(
            f"validation_split needs at least two image pairs to split. Received: {len(pairs)}"
        )
    salt = f"{seed or 0}:"
    ranked = sorted(pairs, key=lambda pair: hashlib.blake2b((salt + pair.name).encode()).digest())
    count = min(max(round(len(pairs) * validation_split), 1), len(pairs) - 1)
    return (
        sorted(ranked[count:], key=lambda pair: pair.name),
        sorted(ranked[:count], key=lambda pair: pair.name),
    )


def _files_by_name(path: Path, argument: str, pattern: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(path.glob(pattern)):
        if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
            continue
        if file.stem in files:
            raise LabelFolderError(
                f"{argument}={pattern!r} in {path} matches two files of the name "
                f"{file.stem!r}: {files[file.stem].relative_to(path)} and "
                f"{file.relative_to(path)}."
            )
        files[file.stem] = file
    return files


def _problem(pair: LabelPair, classes: bool) -> str | None:
    """Why a pair cannot be used, starting with a file name, or None."""
    present = next(file.name for file in (pair.image, pair.instances, pair.classes) if file)
    if pair.instances is None:
        return f"{present}: it has no mask"
    if pair.image is None:
        return f"{present}: it has no image"
    if classes and pair.classes is None:
        return f"{present}: it has no map of classes"
    try:
        image_size = _checked_image_size(pair.image)
    except ImageFileError as error:
        return _reason(pair.image, error)
    for file in (pair.instances, pair.classes if classes else None):
        if file is None:
            continue
        try:
            size = _checked_label_size(file)
        except ImageFileError as error:
            return _reason(file, error)
        if size != image_size:
            return (
                f"{file.name}: it has {size[0]} x {size[1]} pixels, but its image "
                f"{pair.image.name} has {image_size[0]} x {image_size[1]}"
            )
    return None


def _checked_image_size(path: Path) -> tuple[int, int]:
    header = read_header(path)
    plain = header.dtype in (np.uint8, np.uint16) and header.channels in (1, 3, 4)
    if not (plain and header.whole and min(header.height, header.width) >= MIN_SIDE):
        read_image(path)
    return header.height, header.width


def _checked_label_size(path: Path) -> tuple[int, int]:
    header = read_header(path)
    check_label_header(path, header)
    if not (header.whole and header.dtype in (np.uint8, np.uint16)):
        read_labels(path)
    return header.height, header.width


def _reason(path: Path, error: ImageFileError) -> str:
    # The sentence starts with the whole path; the name is enough inside a list.
    text = str(error).removeprefix(f"{path} ").removesuffix(".")
    return f"{path.name}: it {text}"
