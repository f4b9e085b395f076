"""Read the JSON files of COCO: its images, categories and annotations, each checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from keras_rpe.data.class_names import read_json
from keras_rpe.data.image_file import MIN_SIDE
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.image_header import MAX_PIXELS

MAX_BYTES = 2**31
"""The largest size of a JSON file."""

MAX_ID = 2**53
"""The largest number of an image, category or annotation."""

MAX_CATEGORIES = 10_000
"""The largest number of categories that a file may have."""

_FORBIDDEN = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\]|^[A-Za-z]:|\0")


class CocoImage(NamedTuple):
    """An image that a file lists.

    Attributes:
        name: The name of its file without ending.
        file_name: The name of its file, inside the folder of images.
        height: Rows of pixels.
        width: Columns of pixels.
    """

    name: str
    file_name: str
    height: int
    width: int


class CocoCategories(NamedTuple):
    """The classes of a file, in the order of their ids.

    Attributes:
        names: Their names; the first is class 1.
        numbers: The class of each id.
    """

    names: tuple[str, ...]
    numbers: dict[int, int]


def read_coco_json(path: Path) -> dict[str, Any]:
    """Read a file of COCO's form.

    Args:
        path: The file.

    Returns:
        Its dictionary, with lists of dictionaries as `images`, `annotations` and `categories`.

    Raises:
        ImageFileError: If it is missing, larger than 2 GiB, damaged, or of another form.
    """
    content = read_json(path, MAX_BYTES)
    if not isinstance(content, dict):
        raise ImageFileError(f"{path} needs a dictionary with images, annotations and categories.")
    for part in ("images", "annotations", "categories"):
        entries = content.get(part)
        if not isinstance(entries, list):
            raise ImageFileError(f"{path} has no list {part}.")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise ImageFileError(f"{path} has a {part}[{number}] that is no dictionary.")
    return content


def read_images(path: Path, entries: Iterable[dict[str, Any]]) -> dict[int, CocoImage]:
    """Check the images of a file.

    Args:
        path: The file, for errors.
        entries: Its `images`.

    Returns:
        The images by their ids, in their order.

    Raises:
        ImageFileError: If an id, a name or a size is missing, twice or out of range.
    """
    images: dict[int, CocoImage] = {}
    names: set[str] = set()
    for number, entry in enumerate(entries):
        where = f"images[{number}]"
        key = whole(path, where, entry, "id", 0, MAX_ID)
        file_name = entry.get("file_name")
        if not isinstance(file_name, str) or not file_name or len(file_name) > 1024:
            raise ImageFileError(f"{path} has no file_name for {where}.")
        if is_outside(file_name):
            raise ImageFileError(
                f"{path} has the file_name {file_name[:80]!r} for {where}, outside of its folder."
            )
        height, width = (
            whole(path, where, entry, side, MIN_SIDE, MAX_PIXELS) for side in ("height", "width")
        )
        if height * width > MAX_PIXELS:
            raise ImageFileError(
                f"{path} has {height} x {width} pixels for {where}, more than the {MAX_PIXELS} "
                "that are read."
            )
        name = file_name.rsplit(".", 1)[0]
        if key in images or name in names:
            raise ImageFileError(f"{path} has the image {key}, {file_name!r}, twice.")
        names.add(name)
        images[key] = CocoImage(name, file_name, height, width)
    if not images:
        raise ImageFileError(f"{path} has no images.")
    return images


def read_categories(path: Path, entries: list[dict[str, Any]]) -> CocoCategories:
    """Check the categories of a file, and number them from 1 in the order of their ids.

    Args:
        path: The file, for errors.
        entries: Its `categories`.

    Returns:
        The classes.

    Raises:
        ImageFileError: If there is none, or too many, or an id or a name is missing or twice.
    """
    if not 1 <= len(entries) <= MAX_CATEGORIES:
        raise ImageFileError(f"{path} has {len(entries)} categories, not 1 to {MAX_CATEGORIES}.")
    names: dict[int, str] = {}
    for number, entry in enumerate(entries):
        where = f"categories[{number}]"
        key = whole(path, where, entry, "id", 0, MAX_ID)
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            raise ImageFileError(f"{path} has no name for {where}.")
        if key in names or name in names.values():
            raise ImageFileError(f"{path} has the category {key}, {name[:80]!r}, twice.")
        names[key] = name
    ids = sorted(names)
    return CocoCategories(
        tuple(names[key] for key in ids), {key: number for number, key in enumerate(ids, start=1)}
    )


def is_outside(file_name: str) -> bool:
    """Whether a name of a file may lead out of its folder.

    Example:
        >>> from keras_rpe.data.coco_file import is_outside
        >>> is_outside("val/1.jpg"), is_outside("val/../../1.jpg"), is_outside("/1.jpg")
        (False, True, True)
    """
    return _FORBIDDEN.search(file_name) is not None


def whole(path: Path, where: str, entry: dict[str, Any], field: str, low: int, high: int) -> int:
    """A field that is a whole number in a range, or an `ImageFileError` that names it."""
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        shown = "none" if value is None else repr(value)[:40]
        raise ImageFileError(
            f"{path} needs a whole number from {low} to {high} as {field} of {where}, and has "
            f"{shown}."
        )
    return value


def category(path: Path, where: str, entry: dict[str, Any], categories: CocoCategories) -> int:
    """The class of an annotation, or an `ImageFileError` that names it."""
    key = whole(path, where, entry, "category_id", 0, MAX_ID)
    if key not in categories.numbers:
        raise ImageFileError(f"{path} has the unknown category_id {key} for {where}.")
    return categories.numbers[key]


def is_crowd(path: Path, where: str, entry: dict[str, Any]) -> bool:
    """Whether an annotation is of a crowd, or an `ImageFileError` that names it."""
    return bool(whole(path, where, {"iscrowd": 0, **entry}, "iscrowd", 0, 1))
