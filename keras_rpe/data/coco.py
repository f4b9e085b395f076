"""COCO, instances and panoptic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_rpe.data.archives import StoredFile, read_color_ids, read_photo
from keras_rpe.data.crops import CropOptions, chosen_pairs, labelled_dataset
from keras_rpe.data.images import MAX_PIXELS, MIN_SIDE, ImageFileError
from keras_rpe.data.labels import VOID, LabelMaps, class_numbers, read_json
from keras_rpe.optional_import import optional_import

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
        >>> from keras_rpe.data.coco import is_outside
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


_MAX_CHARACTERS = 7  # A number of 35 bits, more than any mask has pixels.


def read_runs(counts: Any, pixels: int) -> np.ndarray:
    """Read the lengths of the runs of a mask, which are of 0 and 1 in turn, columns first.

    COCO compresses a list of lengths: from the fourth on, each is stored as the difference to the
    one two before it, in characters from "0" on that hold 5 bits each and whether one follows.

    Args:
        counts: A list of whole numbers, or a text of the compressed ones.
        pixels: What the lengths need to sum up to: height times width.

    Returns:
        The lengths, int64.

    Raises:
        ValueError: If they are anything else; the message tells why.

    Source:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the mask API of
        its authors, whose format this is.

    Example:
        >>> from keras_rpe.data.coco import read_runs
        >>> read_runs("523N", 10).tolist(), read_runs([5, 2, 3], 10).tolist()
        ([5, 2, 3, 0], [5, 2, 3])
    """
    if isinstance(counts, str):
        runs = _uncompressed(counts)
    elif isinstance(counts, list) and all(type(one) is int for one in counts):
        if any(not 0 <= one <= pixels for one in counts):
            raise ValueError("it has a run that is negative or longer than the mask")
        runs = np.array(counts, np.int64)
    else:
        raise ValueError("its counts are neither a text nor a list of whole numbers")
    if len(runs) and (runs.min() < 0 or runs.max() > pixels):
        raise ValueError("it has a run that is negative or longer than the mask")
    if runs.sum() != pixels:  # no overflow: each is at most 2**28, and there are fewer than 2**31
        raise ValueError(f"its runs cover {runs.sum()} pixels, but the mask has {pixels}")
    return runs


def mask_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fill a mask.

    Args:
        runs: What `read_runs` returned.
        height: Rows.
        width: Columns.

    Returns:
        bool (H, W).

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data.coco import mask_of_runs
        >>> mask_of_runs(np.array([1, 2, 3]), 2, 3).astype(int).tolist()
        [[0, 1, 0], [1, 0, 0]]
    """
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _uncompressed(text: str) -> np.ndarray:
    try:
        bits = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("its counts have characters that no run length has") from None
    if not len(bits):
        return np.zeros(0, np.int64)
    if bits.min() < 0 or bits.max() > 63:
        raise ValueError("its counts have characters that no run length has")
    ends = np.flatnonzero(bits & 32 == 0)
    if not len(ends) or ends[-1] != len(bits) - 1:
        raise ValueError("its counts are cut short")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise ValueError("its counts have a number that is too large")
    places = np.arange(len(bits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((bits & 31) << (5 * places), starts)
    # The highest of the bits is the sign.
    values = values - np.where(bits[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs


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
        keras_rpe.data.images.ImageFileError: .../instances.json has a polygon of 2 points
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
        keras_rpe.data.images.ImageFileError: no_such.json does not exist, or is no file.
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


def coco_instances(
    annotations: str | Path,
    images: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    **options: Any,
) -> tf.data.Dataset:
    """Read the instances of COCO, or of a data set of its form, as batches for `fit`.

    Objects are polygons, filled by COCO's own rule, or run lengths, compressed or not. Where some
    overlap, the one of fewer pixels wins, and of equally large ones the later in the file. Crowds
    are void where there is no object, as is what lies beyond an image that is smaller than the
    crop: `VOID` (-1) in both maps, for training with `ignore_label=VOID`.

    All annotations are checked before anything else; of images, that they exist. Polygons need
    pycocotools: `pip install "keras-rpe[coco]"`.

    Args:
        annotations: The JSON file, such as `instances_train2017.json`.
        images: The folder of its images, such as `train2017`.
        class_names: The classes to keep, to be numbered from 1 in this order; annotations of
            others are left out. `None`
            keeps all, in the order of their ids.
        names: Only these images, by their names without ending.
        **options: How crops are made: `crop_size`, `batch_size`, `shuffle`, `augment`, `zoom`,
            `repeats`, `seed` and `split_pieces`, as `label_folder` describes them. Here the
            defaults are crop_size=320, augment="photo", zoom=(0.7, 1.5) and split_pieces=False.

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
    crops = CropOptions(**options)
    found, known = find_coco_instances(annotations, images)
    class_numbers(annotations, known, class_names)
    examples = chosen_pairs(found, names)

    def load(example: CocoInstancesExample) -> LabelMaps:
        return read_coco_instances(example, known, class_names)

    return labelled_dataset(examples, load, crops)


def coco_panoptic(
    annotations: str | Path,
    images: str | Path,
    segments: str | Path | None = None,
    *,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    **options: Any,
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
            others become background. `None`
            keeps all, in the order of their ids.
        names: Only these images, by their names without ending.
        **options: How crops are made: `crop_size`, `batch_size`, `shuffle`, `augment`, `zoom`,
            `repeats`, `seed` and `split_pieces`, as `label_folder` describes them. Here the
            defaults are crop_size=320, augment="photo", zoom=(0.7, 1.5) and split_pieces=False.

    Returns:
        A dataset of float32 images (B, h, w, 3) in 0..255 and a dictionary of `instances` and
        `classes`, both int32 (B, h, w), of known length. 0 is the background; instances have ids
        from 1 without gaps.

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
        >>> labels["instances"].numpy().max(), labels["classes"].numpy().min()
        (np.int32(0), np.int32(1))
    """
    crops = CropOptions(**options)
    found, known = find_coco_panoptic(annotations, images, segments)
    class_numbers(annotations, known, class_names)
    examples = chosen_pairs(found, names)

    def load(example: CocoPanopticExample) -> LabelMaps:
        return read_coco_panoptic(example, known, class_names)

    return labelled_dataset(examples, load, crops)
