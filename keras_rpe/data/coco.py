"""COCO: instances and panoptic segments."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_rpe.data.archives import StoredFile, check_size, read_color_ids, read_photo
from keras_rpe.data.crops import CropOptions, chosen_pairs, labelled_dataset
from keras_rpe.data.images import MAX_PIXELS, MIN_SIDE, ImageFileError
from keras_rpe.data.labels import VOID, LabelMaps, class_numbers, read_json
from keras_rpe.optional_import import optional_import

MAX_BYTES = 2**31  # of a JSON file
_MAX_ID = 2**53
_MAX_CATEGORIES = 10_000
_MAX_SEGMENT = 2**24 - 1
_MAX_OUTLINE = 2**22  # Pixels; pycocotools takes 80 bytes for each.
_OUTSIDE = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\]|^[A-Za-z]:|\0")
# Run lengths as text have 5 bits a character, and those from "P" on are followed by another.
_DAMAGED = re.compile(r"\A\Z|[^0-o]|[P-o]{6}|[P-o]\Z")


class CocoMask(NamedTuple):
    """The pixels of an annotation."""

    number: int  # its class
    crowd: bool
    pixels: list[np.ndarray] | dict[str, Any]  # polygons x, y, x, y ..., or run lengths


class CocoSegment(NamedTuple):
    """A segment of an image; its key is the color R + 256 G + 65536 B of its pixels."""

    key: int
    number: int  # its class
    thing: bool
    crowd: bool


class CocoExample(NamedTuple):
    """An image with its annotations, in the order of the file.

    Attributes:
        name: The name of the image without ending.
        image: The image's file.
        source: The JSON file.
        size: Height and width, as the JSON file tells them.
        masks: The masks of its instances.
        segments: The segments of its panoptic map.
        segments_image: The PNG file of that map.
    """

    name: str
    image: StoredFile
    source: Path
    size: tuple[int, int]
    masks: list[CocoMask]
    segments: list[CocoSegment]
    segments_image: StoredFile | None = None


class _Index(NamedTuple):
    """The images of a JSON file by their ids, and the classes of its categories."""

    images: dict[int, CocoExample]
    names: tuple[str, ...]
    numbers: dict[int, int]  # the class of each category's id


def _read_index(path: Path, folder: Path) -> tuple[dict[str, Any], _Index]:
    """Read a JSON file, and check its images and categories."""
    content = read_json(path, MAX_BYTES)
    if not isinstance(content, dict):
        raise ImageFileError(f"{path} needs a dictionary with images, annotations and categories.")
    images: dict[int, CocoExample] = {}
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
        image = _existing(folder / file_name)
        images[key] = CocoExample(name, image, path, (height, width), [], [])
    categories: dict[int, Any] = {}
    for where, key, entry in _entries(path, content, "categories"):
        categories[key] = entry.get("name")
        if not isinstance(categories[key], str) or not categories[key]:
            raise ImageFileError(f"{where} has no name.")
    if not images or not 1 <= len(set(categories.values())) == len(categories) <= _MAX_CATEGORIES:
        raise ImageFileError(
            f"{path} needs images, and 1 to {_MAX_CATEGORIES} categories of different names."
        )
    numbers = {key: number for number, key in enumerate(sorted(categories), start=1)}
    return content, _Index(images, tuple(categories[key] for key in numbers), numbers)


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


def find_coco_instances(
    annotations: str | Path, images: str | Path
) -> tuple[list[CocoExample], tuple[str, ...]]:
    """Read a file of COCO's instances and check every annotation of it.

    Args:
        annotations: The JSON file, such as `instances_val2017.json`.
        images: The folder of its images.

    Returns:
        All images, those without annotations too, in the order of the file, for
        `read_coco_instances`; and the names of the classes in the order of their ids, the first of
        which is class 1.

    Raises:
        ImageFileError: If the file is missing, damaged or of another form, or an annotation has an
            unknown image or category, a polygon of fewer than three points or far outside of the
            image, or run lengths that do not fill it; or an image is missing.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from keras_rpe.data import find_coco_instances, write_image
        >>> line = {"id": 7, "image_id": 4, "category_id": 18, "segmentation": [[1, 1, 5, 5]]}
        >>> content = {
        ...     "images": [{"id": 4, "file_name": "a.png", "height": 8, "width": 9}],
        ...     "categories": [{"id": 18, "name": "dog"}],
        ...     "annotations": [line],
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(folder + "/a.png", np.zeros((8, 9, 3), "uint8"))
        ...     path = Path(folder) / "instances.json"
        ...     _ = path.write_text(json.dumps(content))
        ...     find_coco_instances(path, folder)
        Traceback (most recent call last):
        ...
        keras_rpe.data.images.ImageFileError: .../instances.json: annotations[0] (id=7) has a
        polygon of 4 numbers, not of at least 3 points.
    """
    path = Path(annotations)
    content, index = _read_index(path, Path(images))
    for where, _, entry in _entries(path, content, "annotations"):
        example = index.images.get(_integer(where, entry, "image_id"))
        if example is None:
            raise ImageFileError(f"{where} has the unknown image_id {entry['image_id']}.")
        # Taken out, as lists of numbers need four times the memory of arrays.
        pixels = _segmentation(where, entry.pop("segmentation", None), *example.size)
        example.masks.append(CocoMask(*_class_and_crowd(where, entry, index.numbers), pixels))
    return list(index.images.values()), index.names


def read_coco_instances(
    example: CocoExample,
    known_classes: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> LabelMaps:
    """Read an image that `find_coco_instances` found, and paint its annotations.

    Where objects overlap, the one of fewer pixels wins, and of two equally large ones the later
    in the file, whatever their classes. Crowds are void where there is no object.

    Args:
        example: The image with its annotations.
        known_classes: The names of the classes, as `find_coco_instances` returns them.
        class_names: The classes to keep, to be numbered from 1 in this order; annotations of
            others, and their crowds, are left out. `None` keeps all.

    Returns:
        The image with the instance and the class of each pixel. Ids are the places of the
        annotations in the file, counted from 1 for each image.

    Raises:
        ImageFileError: If the image cannot be read or has another size than the file tells.
        ImportError: If there are annotations and pycocotools is missing; the extra `coco` has it.
        ValueError: If `class_names` has one that is unknown.
    """
    table = class_numbers(example.source, known_classes, class_names)
    image = read_photo(example.image)
    check_size(example.image, image.shape[:2], example.size, example.source)
    instances = np.zeros(image.shape[:2], np.int32)
    classes = np.zeros_like(instances)
    area_there = np.full(instances.shape, instances.size + 1)
    crowds = np.zeros(instances.shape, bool)
    for number, one in enumerate(example.masks, start=1):
        if table[one.number] == 0:
            continue
        mask = _mask(one.pixels, *example.size)
        if one.crowd:
            crowds |= mask
            continue
        area = int(mask.sum())
        mask &= area <= area_there
        instances[mask], classes[mask], area_there[mask] = number, table[one.number], area
    crowds &= instances == 0
    instances[crowds] = classes[crowds] = VOID
    return LabelMaps(image, instances, classes)


def _mask(pixels: list[np.ndarray] | dict[str, Any], height: int, width: int) -> np.ndarray:
    api: Any = optional_import("pycocotools.mask", "coco")
    if isinstance(pixels, list):
        pixels = api.merge(api.frPyObjects(pixels, height, width))
    elif not isinstance(pixels["counts"], str):
        pixels = api.frPyObjects(pixels, height, width)
    return api.decode(pixels).astype(bool)


def _segmentation(
    where: str, value: Any, height: int, width: int
) -> list[np.ndarray] | dict[str, Any]:
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


def find_coco_panoptic(
    annotations: str | Path, images: str | Path, segments: str | Path | None = None
) -> tuple[list[CocoExample], tuple[str, ...]]:
    """Read a file of COCO's panoptic segments and check every entry of it.

    Args:
        annotations: The JSON file, such as `panoptic_val2017.json`.
        images: The folder of its images.
        segments: The folder of its PNG files; `None` is the JSON file's name without ending.

    Returns:
        The images, in the order of the file, for `read_coco_panoptic`; and the names of the
        classes, of things and of stuff, in the order of their ids, the first of which is class 1.

    Raises:
        ImageFileError: If the file is missing, damaged or of another form, a segment has an
            unknown category or an id out of range, or an image or a PNG file is missing.

    Example:
        >>> from keras_rpe.data import find_coco_panoptic
        >>> find_coco_panoptic("no_such.json", "images")
        Traceback (most recent call last):
        ...
        keras_rpe.data.images.ImageFileError: no_such.json does not exist, or is not a file.
    """
    path = Path(annotations)
    folder = path.with_suffix("") if segments is None else Path(segments)
    content, index = _read_index(path, Path(images))
    things = {
        index.numbers[key]
        for where, key, entry in _entries(path, content, "categories")
        if _integer(where, entry, "isthing", 0, 1)
    }
    for where, key, entry in _entries(path, content, "annotations", "image_id"):
        if key not in index.images:
            raise ImageFileError(f"{where} is of an unknown image.")
        example = index.images[key]
        for which, color, one in _entries(where, entry, "segments_info", "id", 1, _MAX_SEGMENT):
            kind, crowd = _class_and_crowd(which, one, index.numbers)
            example.segments.append(CocoSegment(color, kind, kind in things, crowd))
        file = _existing(folder / _file_name(where, entry))
        index.images[key] = example._replace(segments_image=file)
    found = list(index.images.values())
    lacking = [example.name for example in found if example.segments_image is None]
    if lacking:
        raise ImageFileError(f"{path} has no annotation of the image {lacking[0]}.")
    return found, index.names


def read_coco_panoptic(
    example: CocoExample,
    known_classes: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> LabelMaps:
    """Read an image that `find_coco_panoptic` found.

    A thing is an instance; stuff has its class, and belongs to no instance. Crowds, and pixels of
    the id 0, are void.

    Args:
        example: The files of the image and its segments.
        known_classes: The names of the classes, as `find_coco_panoptic` returns them.
        class_names: The classes to keep, to be numbered from 1 in this order; the others become
            background. `None` keeps all.

    Returns:
        The image with the instance and the class of each pixel. Ids are the places of the segments
        in the file, counted from 1 for each image.

    Raises:
        ImageFileError: If a file cannot be read, sizes differ, or the colors are not exactly the
            segments of the file.
        ValueError: If `class_names` has one that is unknown.
    """
    table = class_numbers(example.source, known_classes, class_names)
    image = read_photo(example.image)
    check_size(example.image, image.shape[:2], example.size, example.source)
    assert example.segments_image is not None  # since it was found
    ids = read_color_ids(example.segments_image)
    check_size(example.segments_image, ids.shape, example.size, example.source)
    meaning = {0: (VOID, VOID)}
    for place, segment in enumerate(example.segments, start=1):
        kept = int(table[segment.number])
        shown = (VOID, VOID) if segment.crowd else (place if segment.thing else 0, kept)
        meaning[segment.key] = shown if kept else (0, 0)
    keys, places = np.unique(ids, return_inverse=True)
    present = {0, *keys.tolist()}
    if present != meaning.keys():
        key = min(present ^ meaning.keys())
        what = f"a segment {key} that {example.source} lacks"
        if key in meaning:
            what = f"no pixel of the segment {key}"
        raise ImageFileError(f"{example.segments_image} has {what}.")
    both = np.array([meaning[key] for key in keys.tolist()], np.int32)[places.reshape(ids.shape)]
    return LabelMaps(image, both[..., 0], both[..., 1])


def coco_instances(
    annotations: str | Path,
    images: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    crop_size: int | tuple[int, int] | None = 320,
    batch_size: int = 8,
    shuffle: bool = True,
    augment: bool | str | Callable[[dict[str, Any]], dict[str, Any]] = "photo",
    zoom: tuple[float, float] = (0.7, 1.5),
    repeats: int = 1,
    seed: int | None = None,
    names: Sequence[str] | None = None,
    split_pieces: bool = False,
) -> tf.data.Dataset:
    """Read the instances of COCO, or of a data set of its form, as batches for `fit`.

    Objects are polygons or run lengths, filled by pycocotools: `pip install "keras-rpe[coco]"`.
    Where some overlap, the one of fewer pixels wins, and of equally large ones the later in the
    file. Crowds are void where there is no object, as is what lies beyond an image that is smaller
    than the crop: `VOID` (-1) in both maps, for training with `ignore_label=VOID`.

    All annotations are checked before anything else; of images, that they exist.

    Args:
        annotations: The JSON file, such as `instances_train2017.json`.
        images: The folder of its images, such as `train2017`.
        class_names: The classes to keep, to be numbered from 1 in this order; annotations of
            others are left out. `None` keeps all, in the order of their ids.
        crop_size: Side of the crops, (height, width), or `None` for whole images. This and the
            arguments below are those of `label_folder`.
        batch_size: Crops per batch.
        shuffle: Whether every epoch has a new order and new crops.
        augment: How images change; "photo" mirrors and changes colors.
        zoom: Range of the random factor by which crops are enlarged.
        repeats: Crops per image and epoch.
        seed: Makes the batches repeatable.
        names: Only these images, by their names without ending.
        split_pieces: Whether each connected piece of an object becomes an instance of its own.

    Returns:
        A dataset of float32 images (B, h, w, 3) in 0..255 and a dictionary of `instances` and
        `classes`, both int32 (B, h, w), of known length. 0 is the background; instances have ids
        from 1 without gaps.

    Raises:
        LabelFolderError: If there is no image of one of `names`.
        ImageFileError: If the file or an annotation cannot be used, or an image is missing.
        ValueError: If an argument is not as above.

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
        ...     images, labels = next(iter(coco_instances(path, folder, crop_size=24)))
        >>> images.shape, labels["instances"].shape, int(labels["classes"].numpy().max())
        (TensorShape([1, 24, 24, 3]), TensorShape([1, 24, 24]), 1)
    """
    options = CropOptions(
        crop_size, batch_size, shuffle, augment, zoom, repeats, seed, split_pieces
    )
    found, known = find_coco_instances(annotations, images)
    class_numbers(annotations, known, class_names)
    load = functools.partial(read_coco_instances, known_classes=known, class_names=class_names)
    return labelled_dataset(chosen_pairs(found, names), load, options)


def coco_panoptic(
    annotations: str | Path,
    images: str | Path,
    segments: str | Path | None = None,
    *,
    class_names: Sequence[str] | None = None,
    crop_size: int | tuple[int, int] | None = 320,
    batch_size: int = 8,
    shuffle: bool = True,
    augment: bool | str | Callable[[dict[str, Any]], dict[str, Any]] = "photo",
    zoom: tuple[float, float] = (0.7, 1.5),
    repeats: int = 1,
    seed: int | None = None,
    names: Sequence[str] | None = None,
    split_pieces: bool = False,
) -> tf.data.Dataset:
    """Read the panoptic segments of COCO, or of a data set of its form, as batches for `fit`.

    Things, such as dogs, are instances; stuff, such as sky, has its class, and 0 as its instance.
    Crowds, pixels without a segment, and what lies beyond an image that is smaller than the crop
    are `VOID` (-1) in both maps: train with `ignore_label=VOID`.

    All entries of the file are checked before anything else; of images and PNG files, that they
    exist.

    Args:
        annotations: The JSON file, such as `panoptic_train2017.json`.
        images: The folder of its images, such as `train2017`.
        segments: The folder of its PNG files, whose colors R + 256 G + 65536 B are the ids of
            segments; `None` is the JSON file's name without ending.
        class_names: The classes to keep, to be numbered from 1 in this order; segments of
            others become background. `None` keeps all, in the order of their ids.
        crop_size: Side of the crops, (height, width), or `None` for whole images. This and the
            arguments below are those of `label_folder`.
        batch_size: Crops per batch.
        shuffle: Whether every epoch has a new order and new crops.
        augment: How images change; "photo" mirrors and changes colors.
        zoom: Range of the random factor by which crops are enlarged.
        repeats: Crops per image and epoch.
        seed: Makes the batches repeatable.
        names: Only these images, by their names without ending.
        split_pieces: Whether each connected piece of an object becomes an instance of its own.

    Returns:
        A dataset as that of `coco_instances`.

    Raises:
        LabelFolderError: If there is no image of one of `names`.
        ImageFileError: If the file or an entry cannot be used, or an image or PNG is missing.
        ValueError: If an argument is not as above.

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
        ...     images, labels = next(iter(coco_panoptic(path, folder, crop_size=24)))
        >>> int(labels["instances"].numpy().max()), int(labels["classes"].numpy().max())
        (0, 1)
    """
    options = CropOptions(
        crop_size, batch_size, shuffle, augment, zoom, repeats, seed, split_pieces
    )
    found, known = find_coco_panoptic(annotations, images, segments)
    class_numbers(annotations, known, class_names)
    load = functools.partial(read_coco_panoptic, known_classes=known, class_names=class_names)
    return labelled_dataset(chosen_pairs(found, names), load, options)
