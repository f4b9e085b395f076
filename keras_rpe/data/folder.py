"""A folder of images and label images as a `tf.data.Dataset`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_rpe.arguments import check_choice, check_integer, check_number
from keras_rpe.data.crops import CropOptions, chosen_pairs, labelled_dataset
from keras_rpe.data.images import (
    IMAGE_SUFFIXES,
    MIN_SIDE,
    ImageFileError,
    LabelFolderError,
    check_label_header,
    raise_problems,
    read_header,
    read_image,
    read_labels,
)
from keras_rpe.data.labels import VOID, agreed_maps, size_text

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
        raise LabelFolderError(f"`path` must be an existing folder. Received: path={str(path)!r}")
    found, labels = (
        _files_by_name(path, argument, pattern)
        for argument, pattern in (("images", images), ("instances", instances))
    )
    kinds = {} if classes is None else _files_by_name(path, "classes", classes)
    names = sorted(found.keys() | labels.keys() | kinds.keys())
    return [LabelPair(found.get(one), labels.get(one), one, kinds.get(one)) for one in names]


def check_label_pairs(pairs: Sequence[LabelPair], classes: bool = False) -> None:
    """Check that every pair can be used, and report all that cannot in one error.

    Only headers are read where they tell enough; pixels are read where a value can be wrong
    (float images, signed or 32-bit labels) or where a file looks cut short.

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
        keras_rpe.data.images.LabelFolderError: 1 of 1 image pairs cannot be used:
        cell.png: it has no mask.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        raise_problems(pool.map(partial(_problem, classes=classes), pairs), "image pairs")


def split_pairs(
    pairs: Sequence[LabelPair], validation_split: float, seed: int | None = None
) -> tuple[list[LabelPair], list[LabelPair]]:
    """Split pairs into training and validation by nothing but their names and the seed.

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
    check_number("validation_split", validation_split, "(0, 1)")
    if len(pairs) < 2:
        raise ValueError(f"`pairs` must be at least two image pairs. Received: {len(pairs)}")
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
    if not files:
        raise LabelFolderError(
            f"{path} holds no image files ({', '.join(IMAGE_SUFFIXES)}) that match "
            f"{argument}={pattern!r}."
        )
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
    wanted = None
    for file in (pair.image, pair.instances, pair.classes if classes else None):
        if file is None:
            continue
        try:
            size = _checked_size(file, is_image=file is pair.image)
        except ImageFileError as error:
            # The sentence starts with the whole path; the name is enough inside a list.
            return f"{file.name}: it {str(error).removeprefix(f'{file} ').removesuffix('.')}"
        wanted = wanted or size
        if size != wanted:
            return (
                f"{file.name}: it has {size_text(size)} pixels, but its image "
                f"{pair.image.name} has {size_text(wanted)}"
            )
    return None


def _checked_size(path: Path, is_image: bool) -> tuple[int, int]:
    """Check a file, by its header where that tells enough."""
    header = read_header(path)
    plain = header.whole and header.dtype in (np.uint8, np.uint16)
    if not is_image:
        check_label_header(path, header)
        if not plain:
            read_labels(path)
    elif not (plain and header.channels in (1, 3, 4) and min(header[1:3]) >= MIN_SIDE):
        read_image(path)
    return header.height, header.width


def read_label_pair(
    pair: LabelPair, ignore_label: int | None = None, num_classes: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read an image with its instances and, where the pair has such a file, its classes.

    Args:
        pair: What `find_label_pairs` found.
        ignore_label: The number of void pixels in the label files; `None`: there are none.
        num_classes: The highest class that the file may have; `None`: any.

    Returns:
        The image as `read_image` returns it; the instances, int32 (H, W), 0 for the background
        and `VOID` (-1) for void pixels; and the classes, int32 (H, W) likewise, or `None`. An
        object has one class: pixels where the two files disagree are void.

    Raises:
        ImageFileError: If a file is missing or cannot be used, sizes differ, a class is above
            `num_classes`, or an object has none.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from keras_rpe.data import LabelPair, read_label_pair, write_image, write_labels
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     image, instances = Path(folder) / "image.png", Path(folder) / "instances.png"
        ...     write_image(image, np.zeros((8, 8, 3), "uint8"))
        ...     write_labels(instances, np.diag([3, 3, 3, 3, 255, 255, 0, 0]))
        ...     pair = LabelPair(image, instances, "a")
        ...     read_label_pair(pair, ignore_label=255)[1].diagonal().tolist()
        [3, 3, 3, 3, -1, -1, 0, 0]
    """
    if pair.image is None or pair.instances is None:
        raise ImageFileError(f"{pair.name} has no image, or no labels.")
    image, instances = read_image(pair.image), read_labels(pair.instances)
    classes = None if pair.classes is None else read_labels(pair.classes)
    for file, labels in ((pair.instances, instances), (pair.classes, classes)):
        if labels is None:
            continue
        if labels.shape != image.shape[:2]:
            raise ImageFileError(f"{file} and its image differ in size.")
        if ignore_label is not None:
            labels[labels == ignore_label] = VOID
    if classes is None:
        return image, instances, None
    highest = int(classes.max())
    if num_classes is not None and highest > num_classes:
        raise ImageFileError(f"{pair.classes} has the class {highest}, above num_classes.")
    return image, *agreed_maps(pair.classes, instances, classes)


def label_folder(
    path: str | Path,
    *,
    images: str = "images/*",
    instances: str = "instances/*",
    classes: str | None = None,
    crop_size: int | tuple[int, int] | None = 128,
    batch_size: int = 8,
    shuffle: bool = True,
    augment: bool | str | Callable[[dict[str, Any]], dict[str, Any]] = True,
    zoom: tuple[float, float] = (0.65, 1.5),
    repeats: int = 1,
    validation_split: float | None = None,
    subset: str | None = None,
    seed: int | None = None,
    names: Sequence[str] | None = None,
    split_pieces: bool = True,
    ignore_label: int | None = None,
    num_classes: int | None = None,
) -> tf.data.Dataset:
    """Read a folder of images and instance label images as batches for `fit`.

    All files are checked before anything else. Every epoch takes `repeats` crops of every
    image: nine of ten around a random instance, the others anywhere. Images smaller than the
    crop are continued by their edge pixels, with background as labels, or void with `classes` or
    `ignore_label`. Gray images become three equal channels and alpha is dropped. Up to 1 GiB of
    decoded images stays in memory.

    After cropping and augmenting, every connected piece (eight neighbors) becomes an instance
    of its own, with ids from 1 without gaps: a crop can cut an instance in two. An instance
    that is meant to have pieces far apart, such as an object behind a pole, is split as well,
    unless `split_pieces=False`.

    With `classes`, an object has the class that most of its pixels have; pixels of another one,
    or of none, become void, which is `VOID` (-1) in both maps: train with `ignore_label=VOID`.
    Pixels of a class without an instance, such as sky, keep their class.

    Args:
        path: the folder.
        images: a glob inside the folder that the images match.
        instances: a glob inside the folder that the label images match; an image and its
            labels share their name without ending.
        classes: a glob inside the folder that images of each pixel's class match, 0 for the
            background; None: labels are only instances.
        crop_size: side of the square crops, or (height, width), or None for whole images at
            their own sizes, which needs `batch_size=1`.
        batch_size: crops per batch; the last batch of an epoch may be smaller.
        shuffle: new order and new crops in every epoch; False gives every epoch the same
            order and the same crops.
        augment: True for `default_augmentation`, "photo" for `photo_augmentation`, or a Keras
            layer or function on a dictionary of float32 `images` (B, H, W, 3) and
            `segmentation_masks` (B, H, W, 1), which number the regions of an image. It gets the
            crops with a margin, of which the middle is kept, so that turning finds real pixels.
        zoom: with `augment=True` or "photo", each crop is enlarged by a random factor from this
            range; factors below 1 reduce it and show more. Whole images keep their sizes.
        repeats: crops per image and epoch.
        validation_split: the share of images for validation, chosen by name and `seed`.
        subset: "training" or "validation", together with `validation_split`.
        seed: the same seed gives the same batches; None draws one from Python's generator.
        names: only these images, by their names without ending.
        split_pieces: whether each connected piece becomes an instance; False keeps the pieces of
            an instance together.
        ignore_label: the number of void pixels in the files, such as 255, which become `VOID`
            (-1); None: there are none.
        num_classes: the highest class that the files may have; None: any.

    Returns:
        A dataset of float32 images (B, h, w, 3) in the files' own value range and int32
        instance maps (B, h, w), or with `classes` a dictionary of these as `instances` and of
        `classes`, int32 (B, h, w), of known length.

    Raises:
        LabelFolderError: the folder has no usable pairs; the message lists every bad file.
        ValueError: an argument is not as above.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from keras_rpe.data import label_folder
        >>> import tempfile
        >>> from keras_rpe.data import write_image, write_labels
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("images", "instances"):
        ...         (Path(folder) / part).mkdir()
        ...     write_image(folder + "/images/cell.png", np.zeros((40, 40, 3), "uint8"))
        ...     write_labels(folder + "/instances/cell.png", 60000 * np.eye(40, dtype=int))
        ...     dataset = label_folder(folder, crop_size=32, batch_size=2, repeats=2, seed=1)
        ...     batch, labels = next(iter(dataset))
        >>> batch.shape, labels.shape, len(dataset)
        (TensorShape([2, 32, 32, 3]), TensorShape([2, 32, 32]), 1)
    """
    options = CropOptions(
        crop_size, batch_size, shuffle, augment, zoom, repeats, seed, split_pieces
    )
    for argument, value in (("ignore_label", ignore_label), ("num_classes", num_classes)):
        if value is not None:
            check_integer(argument, value, 1, 2**31 - 1)
    if num_classes is not None and classes is None:
        raise ValueError(
            f"`num_classes` needs `classes`. Received: num_classes={num_classes}, classes=None"
        )
    check_choice("subset", subset, (None, "training", "validation"))
    if (validation_split is None) != (subset is None):
        raise ValueError(
            "`subset` and `validation_split` must be given together. "
            f"Received: subset={subset!r}, validation_split={validation_split}"
        )
    pairs = chosen_pairs(find_label_pairs(path, images, instances, classes), names)
    check_label_pairs(pairs, classes is not None)
    if validation_split is not None:
        training, validation = split_pairs(pairs, validation_split, seed)
        pairs = training if subset == "training" else validation

    def load(pair: LabelPair) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        image, labels, kinds = read_label_pair(pair, ignore_label, num_classes)
        if kinds is None and ignore_label is not None:
            kinds = labels.clip(max=1)
        return image, labels, kinds

    return labelled_dataset(pairs, load, options, classes is not None)
