"""PASCAL VOC 2012 and the Semantic Boundaries Dataset (SBD)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_rpe.arguments import check_choice
from keras_rpe.data.archives import (
    StoredFile,
    check_size,
    matlab_variable,
    open_image,
    read_photo,
    tar_index,
)
from keras_rpe.data.images import ImageFileError, LabelFolderError, raise_problems
from keras_rpe.data.labelled_images import LabelledImages, LabelMaps
from keras_rpe.data.labels import VOC_CLASSES, VOID, agreed_maps, class_numbers

SPLITS = ("train", "val", "trainval")
_IMAGES, _LISTS = "JPEGImages", "ImageSets/Segmentation"
_INSTANCES, _CLASSES = "SegmentationObject", "SegmentationClass"
_PREFIX = "VOCdevkit/VOC2012/"
_WANTED = re.compile(
    rf"{_PREFIX}(?:{_IMAGES}/[\w-]+\.jpg|(?:{_INSTANCES}|{_CLASSES})/[\w-]+\.png|"
    rf"{_LISTS}/\w+\.txt)",
    re.ASCII,
)
_VOID_INDEX = 255
_THREADS = 4


class _Files(NamedTuple):
    image: StoredFile
    instances: StoredFile  # a PNG with a palette, or a .mat file of SBD
    classes: StoredFile


def pascal_voc(
    path: str | Path,
    split: str = "train",
    sbd: str | Path | None = None,
    class_names: Sequence[str] | None = None,
) -> LabelledImages:
    """Find the labelled images of PASCAL VOC 2012, and those that SBD adds for training.

    With `sbd`, images of the Semantic Boundaries Dataset that are not in VOC's val are added to
    VOC's train, which makes 10,582 of 1,464; where both label an image, VOC's labels are taken.

    The headers of VOC's files are checked; SBD's files are only looked for. Pixels that VOC
    outlines as void are `VOID` (-1) in both maps, as are those of an object that have another
    class than most of its pixels: train with `ignore_label=VOID`.

    Args:
        path: The folder `VOCdevkit`, the folder `VOC2012` in it, a folder that holds one of them,
            or the tar archive of `VOCdevkit` as it is published, which is read where it lies.
        split: "train", "val" or "trainval": 1,464, 1,449 and 2,913 images.
        sbd: The folder of SBD that holds `img`, `inst` and `cls`, or one that holds it as
            `dataset` or `benchmark_RELEASE/dataset`; needs `split="train"`.
        class_names: The classes to keep, to be numbered from 1 in this order; objects of others
            become background. `None` keeps the 20 of `VOC_CLASSES`.

    Returns:
        The images with their label maps: of VOC in the order of its list, then of SBD by name.

    Raises:
        LabelFolderError: If the folder, a list or a file is missing, or files do not fit together;
            the message lists up to 20 reasons.
        ImageFileError: If the archive or a list is damaged.
        ValueError: If an argument is not as above.

    Source:
        Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV
        2015; Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> from keras_rpe.data import pascal_voc
        >>> labels = np.repeat([[0, 255, 1]], 16, axis=1).repeat(32, axis=0).astype("uint8")
        >>> labels = Image.fromarray(labels)
        >>> labels.putpalette([0, 0, 0, 128, 0, 0])  # mode P
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = Path(folder) / "VOC2012"
        ...     for part in ("JPEGImages", "SegmentationObject", "SegmentationClass"):
        ...         (root / part).mkdir(parents=True)
        ...         image = labels.convert("RGB") if part == "JPEGImages" else labels
        ...         image.save(root / part / ("1" + (".png" if image is labels else ".jpg")))
        ...     (root / "ImageSets/Segmentation").mkdir(parents=True)
        ...     _ = (root / "ImageSets/Segmentation/val.txt").write_text("1")
        ...     image, instances, classes = pascal_voc(folder, "val")[0]
        >>> image.shape, instances.shape, classes.max()
        ((32, 48, 3), (32, 48), np.int32(1))
    """
    check_choice("split", split, SPLITS if sbd is None else ("train",))
    table = class_numbers("PASCAL VOC", VOC_CLASSES, class_names)
    path = Path(path)
    if path.is_dir():
        files = _folder_files(path)
    elif path.is_file():
        stored = tar_index(path, _WANTED)
        files = {name.removeprefix(_PREFIX): file for name, file in stored.items()}
    else:
        raise LabelFolderError(
            f"path needs an existing folder or tar archive. Received: path={str(path)!r}"
        )
    names = _listed(path, files, split)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(names, pool.map(partial(_voc_files, path, files), names)))
    if sbd is not None:
        found |= _sbd_files(Path(sbd), files, {*names, *_listed(path, files, "val")})
    raise_problems((one if isinstance(one, str) else None for one in found.values()), "images")
    return LabelledImages(found, partial(_read, table=table), class_names or VOC_CLASSES)


def _read(files: _Files, table: np.ndarray) -> LabelMaps:
    image = read_photo(files.image)
    if files.instances.path.suffix == ".mat":
        instances, classes = _read_sbd(files.instances.path, files.classes.path)
    else:
        instances, classes = map(_read_palette, (files.instances, files.classes))
        _check_classes(files.classes, classes)
        # Classes without an object are none that VOC has.
        instances = np.where((instances == 0) & (classes > 0), VOID, instances)
    check_size(files.instances, instances.shape, image.shape[:2], "its image")
    instances, classes = agreed_maps(files.instances, instances, classes)
    kept = table[classes]
    return LabelMaps(image, np.where(kept == 0, 0, instances), kept)


def _read_palette(file: StoredFile) -> np.ndarray:
    with open_image(file, "P") as image:
        labels = np.array(image).astype(np.int32)
    return np.where(labels == _VOID_INDEX, VOID, labels)


def _read_sbd(instances: Path, classes: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read `GTinst` of a file in `inst` and `GTcls` of one in `cls`, void where they disagree."""
    fields = _fields(instances, "GTinst")
    ids = _integers(instances, "GTinst.Segmentation", fields.get("Segmentation"))
    categories = _integers(instances, "GTinst.Categories", fields.get("Categories"))
    kinds = _integers(classes, "GTcls.Segmentation", _fields(classes, "GTcls").get("Segmentation"))
    check_size(classes, kinds.shape, ids.shape, instances)
    void = (ids == 255) | (kinds == 255)
    ids, kinds = np.where(void, 0, ids), np.where(void, 0, kinds)
    _check_classes(instances, categories)
    _check_classes(classes, kinds)
    of_instance = np.concatenate([[0], categories.ravel()])
    if ids.max(initial=0) >= len(of_instance):
        raise ImageFileError(
            f"{instances} has the instance {ids.max()}, but categories of {len(of_instance) - 1}."
        )
    lacking = np.flatnonzero(of_instance[1:] == 0) + 1
    if len(lacking):
        raise ImageFileError(f"{instances} has no class for the instance {lacking[0]}.")
    void |= of_instance[ids] != kinds
    return np.where(void, VOID, ids), np.where(void, VOID, kinds)


def _check_classes(file: Any, classes: np.ndarray) -> None:
    highest = classes.max(initial=0)
    if highest > len(VOC_CLASSES):
        raise ImageFileError(
            f"{file} has the class {highest}, above the {len(VOC_CLASSES)} of PASCAL VOC."
        )


def _fields(path: str | Path, name: str) -> dict[str, Any]:
    value = matlab_variable(path, name)
    if not isinstance(value, dict):
        raise ImageFileError(f"{path} has a {name} that is not one struct.")
    return value


def _integers(path: str | Path, name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "buif":
        raise ImageFileError(f"{path} has no {name} of two dimensions.")
    with np.errstate(invalid="ignore"):
        integers = value.astype(np.int32)
    # A NaN equals nothing.
    if value.size and not ((integers == value) & (value >= 0) & (value <= 65535)).all():
        raise ImageFileError(f"{path} has a {name} that is not of integers from 0 to 65535.")
    return integers


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
        for file in (root / part).glob("*")
        if _WANTED.fullmatch(f"{_PREFIX}{part}/{file.name}")
    }


def _listed(path: Path, files: dict[str, StoredFile], split: str) -> list[str]:
    file = files.get(f"{_LISTS}/{split}.txt")
    if file is None:
        raise LabelFolderError(f"{path} has no {_LISTS}/{split}.txt.")
    names = file.read().decode("utf-8", "replace").split()
    if not names or len(set(names)) < len(names):
        raise ImageFileError(f"{file} needs names, each once.")
    return names


def _voc_files(path: Path, files: dict[str, StoredFile], name: str) -> _Files | str:
    """The files of an image, or why they cannot be used."""
    needed = [f"{_IMAGES}/{name}.jpg", f"{_INSTANCES}/{name}.png", f"{_CLASSES}/{name}.png"]
    for file in needed:
        if file not in files:
            return f"{path} has no {file}"
    found = _Files(*(files[file] for file in needed))
    try:
        with open_image(found.image) as image:
            size = image.height, image.width
        for labels in (found.instances, found.classes):
            with open_image(labels, "P") as image:
                check_size(labels, (image.height, image.width), size, "its image")
    except ImageFileError as error:
        return str(error).removesuffix(".")
    return found


def _sbd_files(
    path: Path, files: dict[str, StoredFile], left_out: set[str]
) -> dict[str, _Files | str]:
    for root in (path, path / "dataset", path / "benchmark_RELEASE" / "dataset"):
        if (root / "inst").is_dir() and (root / "cls").is_dir():
            break
    else:
        raise LabelFolderError(f"{path} holds no folders inst and cls of SBD.")
    found: dict[str, _Files | str] = {}
    for file in sorted((root / "inst").glob("*.mat")):
        name = file.stem
        if name in left_out:
            continue
        own = StoredFile(root / "img" / f"{name}.jpg")
        image = files.get(f"{_IMAGES}/{name}.jpg", own)
        classes = root / "cls" / file.name
        if image is own and not own.path.is_file():
            found[name] = f"{file} has no image {own}"
        elif not classes.is_file():
            found[name] = f"{file} has no classes {classes}"
        else:
            found[name] = _Files(image, StoredFile(file), StoredFile(classes))
    if not found:
        raise LabelFolderError(f"{path} adds no image to those of PASCAL VOC.")
    return found
