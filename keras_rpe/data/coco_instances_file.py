"""Read the instances of COCO: polygons and run lengths, painted into maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rpe.data.class_names import class_numbers
from keras_rpe.data.coco_file import (
    MAX_ID,
    CocoImage,
    category,
    is_crowd,
    read_categories,
    read_coco_json,
    read_images,
    whole,
)
from keras_rpe.data.coco_rle import mask_of_runs, read_runs
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_maps import VOID, LabelMaps
from keras_rpe.data.stored_file import StoredFile
from keras_rpe.data.stored_image import read_photo
from keras_rpe.optional_import import optional_import

_MAX_OUTLINE = 2**22  # Pixels; pycocotools takes 80 bytes for each.


class CocoMask(NamedTuple):
    """The pixels of an annotation.

    Attributes:
        where: The annotation, in words.
        number: Its class.
        crowd: Whether it is a crowd, whose objects are not told apart.
        polygons: Outlines x, y, x, y ... in pixels; several are pieces of one object.
        runs: Run lengths; `None` where there are polygons.
    """

    where: str
    number: int
    crowd: bool
    polygons: tuple[np.ndarray, ...]
    runs: np.ndarray | None


class CocoInstancesExample(NamedTuple):
    """An image with its annotations.

    Attributes:
        name: The name of the image without ending.
        image: The image's file.
        source: The JSON file.
        height: Rows of pixels.
        width: Columns of pixels.
        masks: Its annotations, in the order of the file.
    """

    name: str
    image: StoredFile
    source: Path
    height: int
    width: int
    masks: list[CocoMask]


def find_coco_instances(
    annotations: str | Path, images: str | Path
) -> tuple[list[CocoInstancesExample], tuple[str, ...]]:
    """Read a file of COCO's instances and check every annotation of it.

    Args:
        annotations: The JSON file, such as `instances_val2017.json`.
        images: The folder of its images.

    Returns:
        All images, those without annotations too, in the order of the file; and the names of the
        classes in the order of their ids, the first of which is class 1.

    Raises:
        ImageFileError: If the file is missing, damaged or of another form, or an annotation has an
            unknown image or category, a polygon of fewer than three points or far outside of the
            image, or run lengths that do not fill it; or an image is missing.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from keras_rpe.data import find_coco_instances
        >>> content = {
        ...     "images": [{"id": 4, "file_name": "a.jpg", "height": 8, "width": 9}],
        ...     "categories": [{"id": 18, "name": "dog"}],
        ...     "annotations": [
        ...         {"id": 7, "image_id": 4, "category_id": 18, "segmentation": [[1, 1, 5, 5]]}
        ...     ],
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "instances.json"
        ...     _ = path.write_text(json.dumps(content))
        ...     find_coco_instances(path, folder)
        Traceback (most recent call last):
        ...
        keras_rpe.data.image_file_error.ImageFileError: .../instances.json has a polygon of 2 points
        for the annotation 7, not at least 3.
    """
    annotations, images = Path(annotations), Path(images)
    content = read_coco_json(annotations)
    listed = read_images(annotations, content["images"])
    categories = read_categories(annotations, content["categories"])
    masks: dict[int, list[CocoMask]] = {key: [] for key in listed}
    seen: set[int] = set()
    for number, entry in enumerate(content["annotations"]):
        key = whole(annotations, f"annotations[{number}]", entry, "id", 0, MAX_ID)
        where = f"the annotation {key}"
        if key in seen:
            raise ImageFileError(f"{annotations} has {where} twice.")
        seen.add(key)
        of_image = whole(annotations, where, entry, "image_id", 0, MAX_ID)
        if of_image not in listed:
            raise ImageFileError(f"{annotations} has the unknown image_id {of_image} for {where}.")
        image = listed[of_image]
        polygons, runs = _segmentation(annotations, where, entry.pop("segmentation", None), image)
        crowd = is_crowd(annotations, where, entry)
        number_of_class = category(annotations, where, entry, categories)
        masks[of_image].append(CocoMask(where, number_of_class, crowd, polygons, runs))
    found = [
        CocoInstancesExample(
            one.name, image_file(images, one), annotations, one.height, one.width, masks[key]
        )
        for key, one in listed.items()
    ]
    return found, categories.names


def image_file(folder: Path, image: CocoImage) -> StoredFile:
    """The file of an image that a JSON file lists, or an `ImageFileError` where it is missing."""
    path = folder / image.file_name
    if not path.is_file():
        raise ImageFileError(f"{path} does not exist, or is no file.")
    return StoredFile(path)


def read_coco_instances(
    example: CocoInstancesExample,
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
        ImportError: If there are polygons and pycocotools is missing; the extra `coco` has it.
        ValueError: If `class_names` has one that is unknown.
    """
    table = class_numbers(example.source, known_classes, class_names)
    image = read_photo(example.image)
    check_size(example.image, image, example.height, example.width, example.source)
    instances = np.zeros(image.shape[:2], np.int32)
    classes = np.zeros_like(instances)
    area_there = np.full(instances.shape, instances.size + 1)
    crowds = np.zeros(instances.shape, bool)
    for number, one in enumerate(example.masks, start=1):
        if table[one.number] == 0:
            continue
        mask = coco_mask(one, example.height, example.width)
        if one.crowd:
            crowds |= mask
            continue
        area = int(mask.sum())
        mask &= area <= area_there
        instances[mask], classes[mask], area_there[mask] = number, table[one.number], area
    crowds &= instances == 0
    instances[crowds] = classes[crowds] = VOID
    return LabelMaps(image, instances, classes)


def check_size(file: StoredFile, image: np.ndarray, height: int, width: int, source: Path) -> None:
    """Raise `ImageFileError` where an image has another size than a JSON file tells."""
    if image.shape[:2] != (height, width):
        raise ImageFileError(
            f"{file} has {image.shape[0]} x {image.shape[1]} pixels, but {source} tells "
            f"{height} x {width}."
        )


def coco_mask(mask: CocoMask, height: int, width: int) -> np.ndarray:
    """Fill the pixels of an annotation, bool (H, W): polygons by COCO's own rule."""
    if mask.runs is not None:
        return mask_of_runs(mask.runs, height, width)
    api: Any = optional_import("pycocotools.mask", "coco")
    encoded = api.frPyObjects([one.tolist() for one in mask.polygons], height, width)
    return api.decode(api.merge(encoded)).astype(bool)


def _segmentation(
    path: Path, where: str, value: Any, image: CocoImage
) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
    height, width = image.height, image.width
    if isinstance(value, dict):
        size = value.get("size")
        if size != [height, width]:
            raise ImageFileError(
                f"{path} has a mask of the size {repr(size)[:40]} for {where}, but its image has "
                f"[{height}, {width}]."
            )
        try:
            return (), read_runs(value.get("counts"), height * width)
        except ValueError as error:
            raise ImageFileError(f"{path} has a damaged mask for {where}: {error}.") from None
    if not isinstance(value, list) or not value:
        raise ImageFileError(f"{path} has no polygons and no run lengths for {where}.")
    return tuple(_polygon(path, where, one, image) for one in value), None


def _polygon(path: Path, where: str, value: Any, image: CocoImage) -> np.ndarray:
    if not isinstance(value, list) or not all(type(one) in (int, float) for one in value):
        raise ImageFileError(f"{path} has a polygon for {where} that is no list of numbers.")
    if len(value) < 6 or len(value) % 2:
        amount = f"{len(value) // 2} points" if len(value) % 2 == 0 else f"{len(value)} numbers"
        raise ImageFileError(f"{path} has a polygon of {amount} for {where}, not at least 3.")
    try:
        points = np.array(value, np.float64).reshape(-1, 2)
    except OverflowError:  # a whole number beyond those of floats
        points = np.full((1, 2), np.inf)
    size = np.array([image.width, image.height])
    # A NaN fails both comparisons.
    if not ((points >= -size) & (points <= 2 * size)).all():
        raise ImageFileError(f"{path} has a polygon far outside of its image for {where}.")
    steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1)
    if steps.sum() > _MAX_OUTLINE:
        raise ImageFileError(f"{path} has a polygon that is too long for {where}.")
    return points.ravel()
