"""COCO: instances and panoptic segments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.data.archives import StoredFile, check_size, open_image, read_photo
from keras_rpe.data.images import MAX_PIXELS, MIN_SIDE, ImageFileError
from keras_rpe.data.labelled_images import LabelledImages, LabelMaps
from keras_rpe.data.labels import VOID, class_numbers, read_json
from keras_rpe.optional_import import optional_import

MAX_BYTES = 2**31  # of a JSON file
_MAX_ID = 2**53
_MAX_CATEGORIES = 10_000
_MAX_SEGMENT = 2**24 - 1
_MAX_OUTLINE = 2**22  # Pixels; pycocotools takes 80 bytes for each.
_OUTSIDE = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\]|^[A-Za-z]:|\0")
# Run lengths as text have 5 bits a character, and those from "P" on are followed by another.
_DAMAGED = re.compile(r"\A\Z|[^0-o]|[P-o]{6}|[P-o]\Z")


@dataclass
class _Image:
    """An image with its annotations, in the order of the file."""

    name: str
    file: StoredFile
    source: Path  # the JSON file
    size: tuple[int, int]  # as the JSON file tells it
    # Class (0 where it is left out), whether it is a crowd, and polygons or run lengths.
    masks: list[tuple[int, bool, Any]] = field(default_factory=list)
    # The instance and the class that each color R + 256 G + 65536 B of the panoptic map stands for.
    segments: dict[int, tuple[int, int]] = field(default_factory=lambda: {0: (VOID, VOID)})
    segments_file: StoredFile | None = None


def coco_instances(
    annotations: str | Path,
    images: str | Path,
    class_names: Sequence[str] | None = None,
) -> LabelledImages:
    """Find the instances of COCO, or of a data set of its form.

    Objects are polygons or run lengths, filled by pycocotools: `pip install "keras-rpe[coco]"`.
    Where some overlap, the one of fewer pixels wins, and of equally large ones the later in the
    file, whatever their classes. Crowds are void where there is no object: `VOID` (-1) in both
    maps, for training with `ignore_label=VOID`.

    All annotations are checked; of images, that they exist.

    Args:
        annotations: The JSON file, such as `instances_train2017.json`.
        images: The folder of its images, such as `train2017`.
        class_names: The classes to keep, to be numbered from 1 in this order; annotations of
            others are left out. `None` keeps all, in the order of their ids.

    Returns:
        All images with their label maps, in the order of the file. Ids are the places of the
        annotations in the file, counted from 1 for each image.

    Raises:
        ImageFileError: If the file is missing, damaged or of another form, or an annotation has an
            unknown image or category, a polygon of fewer than three points or far outside of the
            image, or run lengths that do not fill it; or an image is missing.
        ValueError: If `class_names` has one that is unknown.

    Source:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from keras_rpe.data import coco_instances, write_image
        >>> dog = {"size": [32, 40], "counts": [320, 640, 320]}  # columns 10 to 29
        >>> content = {
        ...     "images": [{"id": 4, "file_name": "a.png", "height": 32, "width": 40}],
        ...     "categories": [{"id": 18, "name": "dog"}],
        ...     "annotations": [{"id": 7, "image_id": 4, "category_id": 18, "segmentation": dog}],
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(folder + "/a.png", np.zeros((32, 40, 3), "uint8"))
        ...     path = Path(folder) / "instances.json"
        ...     _ = path.write_text(json.dumps(content))
        ...     found = coco_instances(path, folder)
        ...     image, instances, classes = found[0]
        >>> found.class_names, instances[0, 8:12].tolist(), classes.max()
        (('dog',), [0, 0, 1, 1], np.int32(1))
    """
    path = Path(annotations)
    content, found, numbers, known = _read_index(path, Path(images), class_names)
    for where, _, entry in _entries(path, content, "annotations"):
        image = found.get(_integer(where, entry, "image_id"))
        if image is None:
            raise ImageFileError(f"{where} has the unknown image_id {entry['image_id']}.")
        # Taken out, as lists of numbers need four times the memory of arrays.
        pixels = _segmentation(where, entry.pop("segmentation", None), *image.size)
        image.masks.append((*_class_and_crowd(where, entry, numbers), pixels))
    return LabelledImages({one.name: one for one in found.values()}, _read_instances, known)


def coco_panoptic(
    annotations: str | Path,
    images: str | Path,
    segments: str | Path | None = None,
    class_names: Sequence[str] | None = None,
) -> LabelledImages:
    """Find the panoptic segments of COCO, or of a data set of its form.

    Things, such as dogs, are instances; stuff, such as sky, has its class, and 0 as its instance.
    Crowds and pixels without a segment are `VOID` (-1) in both maps: train with
    `ignore_label=VOID`.

    All entries of the file are checked; of images and PNG files, that they exist.

    Args:
        annotations: The JSON file, such as `panoptic_train2017.json`.
        images: The folder of its images, such as `train2017`.
        segments: The folder of its PNG files, whose colors R + 256 G + 65536 B are the ids of
            segments; `None` is the JSON file's name without ending.
        class_names: The classes to keep, to be numbered from 1 in this order; segments of
            others become background. `None` keeps all, in the order of their ids.

    Returns:
        The images with their label maps, in the order of the file. Ids are the places of the
        segments in the file, counted from 1 for each image.

    Raises:
        ImageFileError: If the file is missing, damaged or of another form, a segment has an
            unknown category or an id out of range, or an image or a PNG file is missing.
        ValueError: If `class_names` has one that is unknown.

    Source:
        Kirillov et al., "Panoptic Segmentation", CVPR 2019.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from keras_rpe.data import coco_panoptic, write_image
        >>> sky = {"id": 5, "category_id": 2, "iscrowd": 0}
        >>> content = {
        ...     "images": [{"id": 4, "file_name": "a.png", "height": 32, "width": 40}],
        ...     "categories": [{"id": 2, "name": "sky", "isthing": 0}],
        ...     "annotations": [{"image_id": 4, "file_name": "a.png", "segments_info": [sky]}],
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "panoptic").mkdir()
        ...     write_image(folder + "/a.png", np.zeros((32, 40, 3), "uint8"))
        ...     write_image(folder + "/panoptic/a.png", np.full((32, 40, 3), [5, 0, 0], "uint8"))
        ...     path = Path(folder) / "panoptic.json"
        ...     _ = path.write_text(json.dumps(content))
        ...     image, instances, classes = coco_panoptic(path, folder)[0]
        >>> instances.max(), classes.max()
        (np.int32(0), np.int32(1))
    """
    path = Path(annotations)
    folder = path.with_suffix("") if segments is None else Path(segments)
    content, found, numbers, known = _read_index(path, Path(images), class_names)
    things = {
        key
        for where, key, entry in _entries(path, content, "categories")
        if _integer(where, entry, "isthing", 0, 1)
    }
    for where, key, entry in _entries(path, content, "annotations", "image_id"):
        if key not in found:
            raise ImageFileError(f"{where} is of an unknown image.")
        infos = _entries(where, entry, "segments_info", "id", 1, _MAX_SEGMENT)
        for place, (which, color, one) in enumerate(infos, start=1):
            number, crowd = _class_and_crowd(which, one, numbers)
            instance = place if one["category_id"] in things else 0
            shown = (VOID, VOID) if crowd else (instance, number)
            found[key].segments[color] = shown if number else (0, 0)
        found[key].segments_file = _existing(folder / _file_name(where, entry))
    lacking = [one.name for one in found.values() if one.segments_file is None]
    if lacking:
        raise ImageFileError(f"{path} has no annotation of the image {lacking[0]}.")
    return LabelledImages({one.name: one for one in found.values()}, _read_panoptic, known)


def _read_panoptic(one: _Image) -> LabelMaps:
    image = _read_photo(one)
    file = one.segments_file
    assert file is not None  # since it was found
    with open_image(file, "RGB") as colors:
        ids = np.array(colors).astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    check_size(file, ids.shape, one.size, one.source)
    keys, places = np.unique(ids, return_inverse=True)
    present = {0, *keys.tolist()}
    if present != one.segments.keys():
        key = min(present ^ one.segments.keys())
        what = f"a segment {key} that {one.source} lacks"
        if key in one.segments:
            what = f"no pixel of the segment {key}"
        raise ImageFileError(f"{file} has {what}.")
    meaning = np.array([one.segments[key] for key in keys.tolist()], np.int32)
    both = meaning[places.reshape(ids.shape)]
    return LabelMaps(image, both[..., 0], both[..., 1])


def _read_instances(one: _Image) -> LabelMaps:
    image = _read_photo(one)
    instances = np.zeros(image.shape[:2], np.int32)
    classes = np.zeros_like(instances)
    area_there = np.full(instances.shape, instances.size + 1)
    crowds = np.zeros(instances.shape, bool)
    for place, (number, crowd, pixels) in enumerate(one.masks, start=1):
        if number == 0:
            continue
        mask = _mask(pixels, *one.size)
        if crowd:
            crowds |= mask
            continue
        area = int(mask.sum())
        mask &= area <= area_there
        instances[mask], classes[mask], area_there[mask] = place, number, area
    crowds &= instances == 0
    instances[crowds] = classes[crowds] = VOID
    return LabelMaps(image, instances, classes)


def _read_photo(one: _Image) -> np.ndarray:
    image = read_photo(one.file)
    check_size(one.file, image.shape[:2], one.size, one.source)
    return image


def _mask(pixels: Any, height: int, width: int) -> np.ndarray:
    api: Any = optional_import("pycocotools.mask", "coco")
    if isinstance(pixels, list):
        pixels = api.merge(api.frPyObjects(pixels, height, width))
    elif not isinstance(pixels["counts"], str):
        pixels = api.frPyObjects(pixels, height, width)
    return api.decode(pixels).astype(bool)


def _segmentation(where: str, value: Any, height: int, width: int) -> Any:
    """Polygons x, y, x, y ..., or run lengths."""
    if isinstance(value, dict):
        return _run_lengths(where, value.get("size"), value.get("counts"), height, width)
    if not isinstance(value, list) or not value:
        raise ImageFileError(f"{where} has no polygons and no run lengths.")
    return [_polygon(where, one, height, width) for one in value]


def _run_lengths(where: str, size: Any, counts: Any, height: int, width: int) -> dict[str, Any]:
    if size != [height, width]:
        raise ImageFileError(
            f"{where} has a mask of the size {repr(size)[:40]}, but its image has "
            f"[{height}, {width}]."
        )
    # pycocotools reads past the end of texts that break off, and leaves pixels that no run covers
    # to chance.
    runs = np.zeros(0, np.int64)
    if isinstance(counts, str) and not _DAMAGED.search(counts):
        runs = _runs(counts)
    elif isinstance(counts, list) and all(type(n) is int and 0 <= n < 2**31 for n in counts):
        runs = np.array(counts, np.int64)
        counts = runs.astype(np.uint32)
    if runs.min(initial=0) < 0 or runs.sum() != height * width:
        raise ImageFileError(f"{where} has run lengths that are damaged or do not fill its image.")
    return {"size": size, "counts": counts}


def _runs(text: str) -> np.ndarray:
    """Run lengths, of which those from the fourth on are stored less the one two before."""
    bits = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(bits < 32)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((bits & 31) << shifts, starts)
    runs -= np.where(bits[ends] & 16, np.int64(1) << 5 * lengths, 0)  # the highest bit is the sign
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs


def _polygon(where: str, value: Any, height: int, width: int) -> np.ndarray:
    if not isinstance(value, list) or not all(type(one) in (int, float) for one in value):
        raise ImageFileError(f"{where} has a polygon that is not a list of numbers.")
    if len(value) < 6 or len(value) % 2:
        raise ImageFileError(
            f"{where} has a polygon of {len(value)} numbers, not of at least 3 points."
        )
    try:
        points = np.array(value, np.float64).reshape(-1, 2)
    except OverflowError:  # an integer beyond the range of floats
        points = np.full((1, 2), np.inf)
    size = np.array([width, height])
    if not ((points >= -size) & (points <= 2 * size)).all():  # A NaN fails both.
        raise ImageFileError(f"{where} has a polygon far outside of its image.")
    if np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() > _MAX_OUTLINE:
        raise ImageFileError(f"{where} has a polygon that is too long.")
    return points.ravel()


def _read_index(
    path: Path, folder: Path, class_names: Sequence[str] | None
) -> tuple[dict[str, Any], dict[int, _Image], dict[int, int], Sequence[str]]:
    """Read a JSON file, and check its images and categories.

    Gives the content, the images by their ids, the number of each category's id (0 where
    `class_names` leaves it out), and the names of the classes.
    """
    content = read_json(path, MAX_BYTES)
    if not isinstance(content, dict):
        raise ImageFileError(f"{path} needs a dictionary with images, annotations and categories.")
    images: dict[int, _Image] = {}
    names: set[str] = set()
    for where, key, entry in _entries(path, content, "images"):
        file_name = _file_name(where, entry)
        height, width = (_integer(where, entry, side, MIN_SIDE) for side in ("height", "width"))
        if height * width > MAX_PIXELS:
            raise ImageFileError(
                f"{where} has {height} x {width} pixels, more than the {MAX_PIXELS} that are read."
            )
        name = file_name.rsplit(".", 1)[0]
        if name in names:
            raise ImageFileError(f"{where} has the file_name {name[:80]!r}, which occurs twice.")
        names.add(name)
        images[key] = _Image(name, _existing(folder / file_name), path, (height, width))
    categories: dict[int, Any] = {}
    for where, key, entry in _entries(path, content, "categories"):
        categories[key] = entry.get("name")
        if not isinstance(categories[key], str) or not categories[key]:
            raise ImageFileError(f"{where} has no name.")
    if not images or not 1 <= len(set(categories.values())) == len(categories) <= _MAX_CATEGORIES:
        raise ImageFileError(
            f"{path} needs images, and 1 to {_MAX_CATEGORIES} categories of different names."
        )
    known = [categories[key] for key in sorted(categories)]
    table = class_numbers(path, known, class_names)
    numbers = {key: int(number) for key, number in zip(sorted(categories), table[1:])}
    return content, images, numbers, class_names or known


def _entries(
    of_what: Any,
    content: dict[str, Any],
    part: str,
    key: str = "id",
    low: int = 0,
    high: int = _MAX_ID,
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The dictionaries of a list, each with words for errors and its unique number."""
    entries = content.get(part)
    if not isinstance(entries, list):
        raise ImageFileError(f"{of_what} has no list {part}.")
    seen = set()
    for place, entry in enumerate(entries):
        where = f"{of_what}: {part}[{place}]"
        if not isinstance(entry, dict):
            raise ImageFileError(f"{where} is not a dictionary.")
        number = _integer(where, entry, key, low, high)
        where = f"{where} ({key}={number})"
        if number in seen:
            raise ImageFileError(f"{where} occurs twice.")
        seen.add(number)
        yield where, number, entry


def _integer(
    where: str, entry: dict[str, Any], field: str, low: int = 0, high: int = _MAX_ID
) -> int:
    value = entry.get(field)
    if type(value) is not int or not low <= value <= high:
        raise ImageFileError(
            f"{where} needs an integer from {low} to {high} as {field}. "
            f"Received: {field}={repr(value)[:40]}"
        )
    return value


def _file_name(where: str, entry: dict[str, Any]) -> str:
    name = entry.get("file_name")
    if not isinstance(name, str) or not 0 < len(name) <= 1024 or _OUTSIDE.search(name):
        raise ImageFileError(
            f"{where} needs a file_name inside its folder. Received: file_name={repr(name)[:80]}"
        )
    return name


def _existing(path: Path) -> StoredFile:
    if not path.is_file():
        raise ImageFileError(f"{path} does not exist, or is not a file.")
    return StoredFile(path)


def _class_and_crowd(
    where: str, entry: dict[str, Any], numbers: dict[int, int]
) -> tuple[int, bool]:
    key = _integer(where, entry, "category_id")
    if key not in numbers:
        raise ImageFileError(f"{where} has the unknown category_id {key}.")
    return numbers[key], bool(_integer(where, {"iscrowd": 0, **entry}, "iscrowd", 0, 1))
