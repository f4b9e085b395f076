"""Read the panoptic segments of COCO: things and stuff, as colors of PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rpe.data.class_names import class_numbers
from keras_rpe.data.coco_file import (
    MAX_ID,
    CocoCategories,
    category,
    is_crowd,
    is_outside,
    read_categories,
    read_coco_json,
    read_images,
    whole,
)
from keras_rpe.data.coco_instances_file import check_size, image_file
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_maps import VOID, LabelMaps
from keras_rpe.data.stored_file import StoredFile
from keras_rpe.data.stored_image import read_color_ids, read_photo

_MAX_SEGMENT = 2**24 - 1


class CocoSegment(NamedTuple):
    """A segment of an image.

    Attributes:
        key: Its id, the color R + 256 G + 65536 B of its pixels.
        number: Its class.
        thing: Whether it is one object, or stuff such as sky.
        crowd: Whether it is a crowd, whose objects are not told apart.
    """

    key: int
    number: int
    thing: bool
    crowd: bool


class CocoPanopticExample(NamedTuple):
    """An image with its segments.

    Attributes:
        name: The name of the image without ending.
        image: The image's file.
        segments_image: The PNG file whose colors are the segments.
        source: The JSON file.
        segments: What each color is.
    """

    name: str
    image: StoredFile
    segments_image: StoredFile
    source: Path
    segments: list[CocoSegment]


def find_coco_panoptic(
    annotations: str | Path, images: str | Path, segments: str | Path | None = None
) -> tuple[list[CocoPanopticExample], tuple[str, ...]]:
    """Read a file of COCO's panoptic segments and check every entry of it.

    Args:
        annotations: The JSON file, such as `panoptic_val2017.json`.
        images: The folder of its images.
        segments: The folder of its PNG files; `None` is the JSON file's name without ending.

    Returns:
        The images, in the order of the file; and the names of the classes, of things and of stuff,
        in the order of their ids, the first of which is class 1.

    Raises:
        ImageFileError: If the file is missing, damaged or of another form, a segment has an
            unknown category or an id out of range, or an image or a PNG file is missing.

    Example:
        >>> from keras_rpe.data import find_coco_panoptic
        >>> find_coco_panoptic("no_such.json", "images")
        Traceback (most recent call last):
        ...
        keras_rpe.data.image_file_error.ImageFileError: no_such.json does not exist, or is no file.
    """
    annotations, images = Path(annotations), Path(images)
    folder = annotations.with_suffix("") if segments is None else Path(segments)
    content = read_coco_json(annotations)
    listed = read_images(annotations, content["images"])
    categories = read_categories(annotations, content["categories"])
    things = {
        categories.numbers[entry["id"]]
        for entry in content["categories"]
        if whole(annotations, f"the category {entry['id']}", entry, "isthing", 0, 1)
    }
    found: dict[int, CocoPanopticExample] = {}
    for number, entry in enumerate(content["annotations"]):
        key = whole(annotations, f"annotations[{number}]", entry, "image_id", 0, MAX_ID)
        where = f"the annotation of the image {key}"
        if key not in listed:
            raise ImageFileError(f"{annotations} has an annotation of the unknown image {key}.")
        if key in found:
            raise ImageFileError(f"{annotations} has {where} twice.")
        name = entry.get("file_name")
        if not isinstance(name, str) or not name or is_outside(name):
            raise ImageFileError(f"{annotations} has no file_name inside a folder for {where}.")
        if not (folder / name).is_file():
            raise ImageFileError(f"{folder / name} does not exist, or is no file.")
        found[key] = CocoPanopticExample(
            listed[key].name,
            image_file(images, listed[key]),
            StoredFile(folder / name),
            annotations,
            _segments(annotations, where, entry.get("segments_info"), categories, things),
        )
    lacking = next((key for key in listed if key not in found), None)
    if lacking is not None:
        raise ImageFileError(f"{annotations} has no annotation of the image {lacking}.")
    return [found[key] for key in listed], categories.names


def read_coco_panoptic(
    example: CocoPanopticExample,
    known_classes: Sequence[str],
    class_names: Sequence[str] | None = None,
) -> LabelMaps:
    """Read an image that `find_coco_panoptic` found.

    A thing is an instance; stuff has its class, and is of no instance. Crowds, and pixels of the
    id 0, are void.

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
    ids = read_color_ids(example.segments_image)
    check_size(example.segments_image, ids, image.shape[0], image.shape[1], example.image.path)
    keys, places = np.unique(ids, return_inverse=True)
    listed = {segment.key: row for row, segment in enumerate(example.segments)}
    missing = sorted(listed.keys() - set(keys.tolist()))
    if missing:
        raise ImageFileError(f"{example.segments_image} has no pixel of the segment {missing[0]}.")
    meaning = np.full((len(keys), 2), VOID, np.int32)
    for row, key in enumerate(keys.tolist()):
        if key == 0:
            continue
        if key not in listed:
            raise ImageFileError(
                f"{example.segments_image} has the segment {key}, which {example.source} lacks."
            )
        segment = example.segments[listed[key]]
        kept = table[segment.number]
        if kept == 0:
            meaning[row] = 0
        elif not segment.crowd:
            meaning[row] = listed[key] + 1 if segment.thing else 0, kept
    both = meaning[places.reshape(ids.shape)]
    return LabelMaps(image, both[..., 0], both[..., 1])


def _segments(
    path: Path, where: str, value: Any, categories: CocoCategories, things: set[int]
) -> list[CocoSegment]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ImageFileError(f"{path} has no list segments_info for {where}.")
    segments: dict[int, CocoSegment] = {}
    for number, entry in enumerate(value):
        which = f"segments_info[{number}] of {where}"
        key = whole(path, which, entry, "id", 1, _MAX_SEGMENT)
        if key in segments:
            raise ImageFileError(f"{path} has the segment {key} twice for {where}.")
        kind = category(path, which, entry, categories)
        segments[key] = CocoSegment(key, kind, kind in things, is_crowd(path, which, entry))
    return list(segments.values())
