"""Find and read the images of PASCAL VOC 2012 and of SBD, which labels more of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_rpe.data.class_names import VOC_CLASSES, class_numbers
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_folder_error import LabelFolderError
from keras_rpe.data.label_maps import VOID, LabelMaps, agreed_maps
from keras_rpe.data.sbd_file import read_sbd
from keras_rpe.data.stored_file import StoredFile
from keras_rpe.data.stored_image import (
    check_palette,
    read_palette_labels,
    read_photo,
    read_stored_header,
)
from keras_rpe.data.tar_index import tar_index

SPLITS = ("train", "val", "trainval")
"""The lists of labelled images."""

_IMAGES, _LISTS = "JPEGImages", "ImageSets/Segmentation"
_INSTANCES, _CLASSES = "SegmentationObject", "SegmentationClass"
_PREFIX = "VOCdevkit/VOC2012/"
_WANTED = re.compile(
    rf"{_PREFIX}(?:{_IMAGES}/[\w-]+\.jpg|(?:{_INSTANCES}|{_CLASSES})/[\w-]+\.png|"
    rf"{_LISTS}/\w+\.txt)",
    re.ASCII,
)
_NAME = re.compile(r"[\w-]+", re.ASCII)
_VOID_INDEX = 255
_SHOWN = 20
_THREADS = 4


class PascalVocExample(NamedTuple):
    """The files of an image.

    Attributes:
        name: The name that they share, without ending.
        image: The photograph.
        instances: A PNG with a palette in `SegmentationObject`, or a .mat file in SBD's `inst`.
        classes: A PNG with a palette in `SegmentationClass`, or a .mat file in SBD's `cls`.
    """

    name: str
    image: StoredFile
    instances: StoredFile
    classes: StoredFile


def find_pascal_voc(
    path: str | Path, split: str = "train", sbd: str | Path | None = None
) -> list[PascalVocExample]:
    """Find the labelled images of PASCAL VOC 2012, and those that SBD adds for training.

    Args:
        path: The folder `VOCdevkit`, the folder `VOC2012` in it, a folder that holds one of them,
            or the tar archive of `VOCdevkit` as it is published, which is read where it lies.
        split: "train", "val" or "trainval".
        sbd: The folder of SBD that holds `img`, `inst` and `cls`, or one that holds it as
            `dataset` or `benchmark_RELEASE/dataset`. Its images that are not in VOC's val are
            added; those in VOC's train keep VOC's labels. Needs `split="train"`.

    Returns:
        The files of each image: of VOC in the order of its list, then of SBD by name.

    Raises:
        LabelFolderError: If the folder, a list or a file is missing, or files do not fit together;
            the message lists up to 20 reasons.
        ImageFileError: If the archive is damaged or a list has a name that no file can have.
        ValueError: If an argument is not as above.

    Example:
        >>> from keras_rpe.data import find_pascal_voc
        >>> find_pascal_voc("no_such_folder")
        Traceback (most recent call last):
        ...
        keras_rpe.data.label_folder_error.LabelFolderError: path needs an existing folder or ...
    """
    if split not in SPLITS:
        raise ValueError(f"split needs one of {', '.join(SPLITS)}. Received: split={split!r}")
    if sbd is not None and split != "train":
        raise ValueError(f'sbd needs split="train". Received: split={split!r}')
    path = Path(path)
    if path.is_dir():
        files = _folder_files(path)
    elif path.is_file():
        files = {
            name.removeprefix(_PREFIX): file for name, file in tar_index(path, _WANTED).items()
        }
    else:
        raise LabelFolderError(
            f"path needs an existing folder or tar archive. Received: path={str(path)!r}"
        )
    names = _listed(path, files, split)
    examples, reasons = _voc_examples(path, files, names)
    if sbd is not None:
        held_out = set(_listed(path, files, "val"))
        more, also = _sbd_examples(Path(sbd), files, set(names) | held_out)
        examples, reasons = examples + more, reasons + also
    if reasons:
        shown = "; ".join(reasons[:_SHOWN])
        rest = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        raise LabelFolderError(
            f"{len(reasons)} of {len(examples) + len(reasons)} images cannot be used: "
            f"{shown}{rest}."
        )
    return examples


def read_pascal_voc(
    example: PascalVocExample, class_names: Sequence[str] | None = None
) -> LabelMaps:
    """Read an image that `find_pascal_voc` found.

    Args:
        example: Its files.
        class_names: The classes to keep, to be numbered from 1 in this order; the others become
            background. `None` keeps the 20 of `VOC_CLASSES`.

    Returns:
        The image with the instance and the class of each pixel. Pixels of 255 are `VOID`, as are
        those of an object that have another class than most of its pixels.

    Raises:
        ImageFileError: If a file cannot be used, sizes differ, or a class is unknown.
        ValueError: If `class_names` has one that is unknown.
    """
    table = class_numbers("PASCAL VOC", VOC_CLASSES, class_names)
    image = read_photo(example.image)
    if example.instances.path.suffix == ".mat":
        instances, classes = read_sbd(example.instances.path, example.classes.path)
    else:
        instances, classes = (
            np.where(one == _VOID_INDEX, VOID, one.astype(np.int32))
            for one in map(read_palette_labels, (example.instances, example.classes))
        )
        if classes.max() > len(VOC_CLASSES):
            raise ImageFileError(
                f"{example.classes} has the class {classes.max()}, above the "
                f"{len(VOC_CLASSES)} of PASCAL VOC."
            )
        # Classes without an object are none that VOC has.
        instances = np.where((instances == 0) & (classes > 0), VOID, instances)
    if instances.shape != image.shape[:2]:
        raise ImageFileError(
            f"{example.instances} has {instances.shape[0]} x {instances.shape[1]} pixels, but its "
            f"image has {image.shape[0]} x {image.shape[1]}."
        )
    instances, classes = agreed_maps(example.instances, instances, classes)
    kept = table[classes]
    return LabelMaps(image, np.where(kept == 0, 0, instances), kept)


def _folder_files(path: Path) -> dict[str, StoredFile]:
    """The files of a folder, by their names inside of VOC2012."""
    for root in (path, path / "VOC2012", path / "VOCdevkit" / "VOC2012"):
        if (root / _LISTS).is_dir():
            break
    else:
        raise LabelFolderError(f"{path} holds no VOCdevkit/VOC2012 with {_LISTS}.")
    return {
        f"{part}/{file.name}": StoredFile(file)
        for part in (_IMAGES, _INSTANCES, _CLASSES, _LISTS)
        for file in sorted((root / part).glob("*"))
        if _WANTED.fullmatch(f"{_PREFIX}{part}/{file.name}")
    }


def _listed(path: Path, files: dict[str, StoredFile], split: str) -> list[str]:
    file = files.get(f"{_LISTS}/{split}.txt")
    if file is None:
        raise LabelFolderError(f"{path} has no {_LISTS}/{split}.txt.")
    names = file.read().decode("utf-8", "replace").split()
    for name in names:
        if not _NAME.fullmatch(name):
            raise ImageFileError(f"{file} has a name that no image has: {name[:80]!r}.")
    if not names or len(set(names)) < len(names):
        raise ImageFileError(f"{file} needs names, each once.")
    return names


def _voc_examples(
    path: Path, files: dict[str, StoredFile], names: Iterable[str]
) -> tuple[list[PascalVocExample], list[str]]:
    examples, reasons = [], []
    for name in names:
        needed = [f"{_IMAGES}/{name}.jpg", f"{_INSTANCES}/{name}.png", f"{_CLASSES}/{name}.png"]
        missing = [file for file in needed if file not in files]
        if missing:
            reasons.append(f"{path} has no {missing[0]}")
        else:
            examples.append(PascalVocExample(name, *(files[file] for file in needed)))
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = list(pool.map(_problem, examples))
    reasons += [problem for problem in problems if problem]
    return [one for one, problem in zip(examples, problems) if not problem], reasons


def _problem(example: PascalVocExample) -> str | None:
    """Why the headers of an image's files do not fit together, or `None`."""
    try:
        image = read_stored_header(example.image)
        for file in (example.instances, example.classes):
            header = read_stored_header(file)
            check_palette(file, header)
            if header[:2] != image[:2]:
                return (
                    f"{file} has {header.height} x {header.width} pixels, but its image has "
                    f"{image.height} x {image.width}"
                )
    except ImageFileError as error:
        return str(error).removesuffix(".")
    return None


def _sbd_examples(
    path: Path, files: dict[str, StoredFile], left_out: set[str]
) -> tuple[list[PascalVocExample], list[str]]:
    for root in (path, path / "dataset", path / "benchmark_RELEASE" / "dataset"):
        if all((root / part).is_dir() for part in ("inst", "cls")):
            break
    else:
        raise LabelFolderError(f"{path} holds no folders inst and cls of SBD.")
    found: list[PascalVocExample] = []
    reasons = []
    for file in sorted((root / "inst").glob("*.mat")):
        if file.stem in left_out:
            continue
        own = StoredFile(root / "img" / f"{file.stem}.jpg")
        image = files.get(f"{_IMAGES}/{file.stem}.jpg", own)
        classes = root / "cls" / file.name
        if image is own and not own.path.is_file():
            reasons.append(f"{file} has no image {own}")
        elif not classes.is_file():
            reasons.append(f"{file} has no classes {classes}")
        else:
            found.append(PascalVocExample(file.stem, image, StoredFile(file), StoredFile(classes)))
    if not found and not reasons:
        raise LabelFolderError(f"{path} adds no image to those of PASCAL VOC.")
    return found, reasons
