"""PASCAL VOC 2012 and the Semantic Boundaries Dataset (SBD)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_rpe.arguments import check_choice
from keras_rpe.data.archives import (
    StoredFile,
    check_size,
    matlab_variable,
    open_image,
    read_palette_labels,
    read_photo,
    tar_index,
)
from keras_rpe.data.crops import CropOptions, chosen_pairs, labelled_dataset
from keras_rpe.data.images import ImageFileError, LabelFolderError, raise_problems
from keras_rpe.data.labels import VOC_CLASSES, VOID, LabelMaps, agreed_maps, class_numbers

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


def read_sbd(instances: str | Path, classes: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the instances and the classes of an image of SBD.

    Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011: `inst/NAME.mat` holds
    `GTinst` with the fields `Segmentation`, the instance of each pixel, and `Categories`, the class
    of each instance; `cls/NAME.mat` holds `GTcls` with the field `Segmentation`, the class of each
    pixel. Classes are those of PASCAL VOC.

    Args:
        instances: The file in `inst`.
        classes: The file in `cls`.

    Returns:
        The instances, int32 (H, W), 0 for the background and ids from 1; and the classes, int32
        (H, W) likewise. Both are `VOID` (-1) where the two files disagree on the class, and where
        they say 255.

    Raises:
        ImageFileError: If a file is missing or damaged, lacks a field, or has an instance without
            category or a class that is unknown, or the sizes differ.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import scipy.io
        >>> from keras_rpe.data import read_sbd
        >>> inst = {"Segmentation": np.array([[0, 1, 2]], "uint8"), "Categories": [[8], [12]]}
        >>> cls = {"Segmentation": np.array([[0, 8, 12]], "uint8")}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scipy.io.savemat(folder + "/inst.mat", {"GTinst": inst})
        ...     scipy.io.savemat(folder + "/cls.mat", {"GTcls": cls})
        ...     instances, classes = read_sbd(folder + "/inst.mat", folder + "/cls.mat")
        >>> instances.tolist(), classes.tolist()
        ([[0, 1, 2]], [[0, 8, 12]])
    """
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
        ImageFileError: If the archive or a list is damaged.
        ValueError: If an argument is not as above.

    Example:
        >>> from keras_rpe.data import find_pascal_voc
        >>> find_pascal_voc("no_such_folder")
        Traceback (most recent call last):
        ...
        keras_rpe.data.images.LabelFolderError: path needs an existing folder or ...
    """
    check_choice("split", split, SPLITS if sbd is None else ("train",))
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
    found = _voc_examples(path, files, names)
    if sbd is not None:
        found += _sbd_examples(Path(sbd), files, {*names, *_listed(path, files, "val")})
    raise_problems((one if isinstance(one, str) else None for one in found), "images")
    return [one for one in found if not isinstance(one, str)]


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
        _check_classes(example.classes, classes)
        # Classes without an object are none that VOC has.
        instances = np.where((instances == 0) & (classes > 0), VOID, instances)
    check_size(example.instances, instances.shape, image.shape[:2], "its image")
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


def _voc_examples(
    path: Path, files: dict[str, StoredFile], names: Iterable[str]
) -> list[PascalVocExample | str]:
    """The files of each image, or why they cannot be used."""

    def example(name: str) -> PascalVocExample | str:
        needed = [f"{_IMAGES}/{name}.jpg", f"{_INSTANCES}/{name}.png", f"{_CLASSES}/{name}.png"]
        for file in needed:
            if file not in files:
                return f"{path} has no {file}"
        found = PascalVocExample(name, *(files[file] for file in needed))
        try:
            with open_image(found.image) as image:
                size = image.height, image.width
            for labels in (found.instances, found.classes):
                with open_image(labels, "P") as image:
                    check_size(labels, (image.height, image.width), size, "its image")
        except ImageFileError as error:
            return str(error).removesuffix(".")
        return found

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(example, names))


def _sbd_examples(
    path: Path, files: dict[str, StoredFile], left_out: set[str]
) -> list[PascalVocExample | str]:
    for root in (path, path / "dataset", path / "benchmark_RELEASE" / "dataset"):
        if (root / "inst").is_dir() and (root / "cls").is_dir():
            break
    else:
        raise LabelFolderError(f"{path} holds no folders inst and cls of SBD.")
    found: list[PascalVocExample | str] = []
    for file in sorted((root / "inst").glob("*.mat")):
        if file.stem in left_out:
            continue
        own = StoredFile(root / "img" / f"{file.stem}.jpg")
        image = files.get(f"{_IMAGES}/{file.stem}.jpg", own)
        classes = root / "cls" / file.name
        if image is own and not own.path.is_file():
            found.append(f"{file} has no image {own}")
        elif not classes.is_file():
            found.append(f"{file} has no classes {classes}")
        else:
            found.append(PascalVocExample(file.stem, image, StoredFile(file), StoredFile(classes)))
    if not found:
        raise LabelFolderError(f"{path} adds no image to those of PASCAL VOC.")
    return found


def pascal_voc(
    path: str | Path,
    split: str = "train",
    *,
    sbd: str | Path | None = None,
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
    """Read PASCAL VOC 2012 as batches of images, instances and classes for `fit`.

    With `sbd`, images of the Semantic Boundaries Dataset that are not in VOC's val are added to
    VOC's train, which makes 10,582 of 1,464; where both label an image, VOC's labels are taken.

    The headers of VOC's files are checked before anything else; SBD's files are only looked for.
    Pixels that VOC outlines as void, and those beyond an image that is smaller than the crop, are
    `VOID` (-1) in both maps: train with `ignore_label=VOID`.

    Args:
        path: The folder `VOCdevkit` or the published tar archive of it, which is not unpacked.
        split: "train", "val" or "trainval": 1,464, 1,449 and 2,913 images.
        sbd: The folder of SBD that holds `img`, `inst` and `cls`, or `benchmark_RELEASE` above it;
            needs `split="train"`.
        class_names: The classes to keep, to be numbered from 1 in this order; objects of others
            become background. `None` keeps the 20 of `VOC_CLASSES`.
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
        LabelFolderError: If folders, lists or files are missing or do not fit together.
        ImageFileError: If the archive is damaged.
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
        ...     images, labels = next(iter(pascal_voc(folder, "val", crop_size=24, batch_size=1)))
        >>> images.shape, labels["instances"].shape, int(labels["classes"].numpy().max())
        (TensorShape([1, 24, 24, 3]), TensorShape([1, 24, 24]), 1)
    """
    options = CropOptions(
        crop_size, batch_size, shuffle, augment, zoom, repeats, seed, split_pieces
    )
    class_numbers("PASCAL VOC", VOC_CLASSES, class_names)
    examples = chosen_pairs(find_pascal_voc(path, split, sbd), names)
    load = functools.partial(read_pascal_voc, class_names=class_names)
    return labelled_dataset(examples, load, options)
