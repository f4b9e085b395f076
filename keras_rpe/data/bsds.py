"""BSDS500: images and the boundaries that people drew."""

from __future__ import annotations

import gzip
import math
import re
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_rpe.arguments import check_choice
from keras_rpe.data.archives import matlab_variable
from keras_rpe.data.batches import Batch
from keras_rpe.data.boundary_crops import (
    AnnotatedImage,
    annotated_image,
    draw_center,
    plain_crop,
    turned_crop,
)
from keras_rpe.data.crops import CropOptions, crop_batches, draw_corner, recolored
from keras_rpe.data.images import (
    MIN_SIDE,
    ImageFileError,
    LabelFolderError,
    find_images,
    read_image,
)
from keras_rpe.data.labelled_images import chosen
from keras_rpe.data.labels import size_text
from keras_rpe.written_file import write_file

if TYPE_CHECKING:
    import tensorflow as tf

_MAX_ANNOTATORS = 100
_VARIABLE = "groundTruth"
_MAX_SEGMENT = 65535
_TURNS = 16  # the number of angles of the augmentation, evenly spread over a full turn


class BoundaryAnnotation(NamedTuple):
    """What one annotator drew into an image.

    Attributes:
        segmentation: uint16 (H, W), the number of the segment that each pixel belongs to.
        boundaries: bool (H, W), true at the pixels of the thin lines between segments.
    """

    segmentation: np.ndarray
    boundaries: np.ndarray


def read_boundaries(path: str | Path) -> list[BoundaryAnnotation]:
    """Read the annotations of an image in the format of BSDS500.

    The file is one of MATLAB with the variable `groundTruth`: a cell of structs, or a struct array,
    with the fields `Segmentation` and `Boundaries`, one element for each annotator: Arbeláez et
    al., "Contour Detection and Hierarchical Image Segmentation", PAMI 2011. Nothing of the file is
    executed, and at most 256 MiB are read.

    Args:
        path: The file.

    Returns:
        The annotations, one or more, all of one size.

    Raises:
        ImageFileError: If the file is missing, damaged or of another kind, has no annotator, or
            an annotator's maps are missing, not of whole numbers, of another size than the
            others, smaller than 8 pixels on a side, or without any boundary.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import scipy.io
        >>> from keras_rpe.data import read_boundaries
        >>> halves = np.repeat([[1, 2]], 4, axis=1).repeat(8, axis=0).astype("uint16")
        >>> drawn = np.zeros((8, 8), "uint8")
        >>> drawn[:, 3] = 1
        >>> truth = np.empty((1, 1), object)
        >>> truth[0, 0] = {"Segmentation": halves, "Boundaries": drawn}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scipy.io.savemat(folder + "/plane.mat", {"groundTruth": truth})
        ...     annotations = read_boundaries(folder + "/plane.mat")
        >>> len(annotations), annotations[0].boundaries.sum(axis=0).tolist()
        (1, [0, 0, 0, 8, 0, 0, 0, 0])
    """
    path = Path(path)
    structs = matlab_variable(path, _VARIABLE)
    structs = structs if isinstance(structs, list) else [structs]
    # A cell holds structs, or arrays of them.
    annotators = [fields for one in structs for fields in (one if isinstance(one, list) else [one])]
    structs_only = all(isinstance(fields, dict) for fields in annotators)
    if not structs_only or not 1 <= len(annotators) <= _MAX_ANNOTATORS:
        raise ImageFileError(
            f"{path} has a {_VARIABLE} that is not a cell of 1 to {_MAX_ANNOTATORS} structs."
        )
    annotations: list[BoundaryAnnotation] = []
    for number, fields in enumerate(annotators, start=1):
        who = f"annotator {number} of {len(annotators)}"
        maps = []
        for name in ("Segmentation", "Boundaries"):
            maps.append(_whole_numbers(fields.get(name), f"{path} has a {name} for {who}"))
            size = annotations[0].boundaries.shape if annotations else maps[0].shape
            if maps[-1].shape != size:
                raise ImageFileError(
                    f"{path} has a {name} for {who} of {size_text(maps[-1].shape)} pixels, but "
                    f"the map before it has {size_text(size)}."
                )
        if not maps[1].any():
            raise ImageFileError(f"{path} has no boundary at all for {who}.")
        annotations.append(BoundaryAnnotation(maps[0], maps[1] != 0))
    return annotations


def _whole_numbers(value: Any, what: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ImageFileError(f"{what} that is not an array.")
    if value.ndim != 2 or min(value.shape) < MIN_SIDE:
        raise ImageFileError(
            f"{what} of {size_text(value.shape)} pixels, not at least {MIN_SIDE} x {MIN_SIDE}."
        )
    low, high = value.min(), value.max()  # a NaN makes both NaN, which fails the comparison
    fits = 0 <= low <= high <= _MAX_SEGMENT
    if not fits or (value.dtype.kind == "f" and (value != np.floor(value)).any()):
        raise ImageFileError(f"{what} that is not of whole numbers from 0 to {_MAX_SEGMENT}.")
    return np.ascontiguousarray(value, dtype=np.uint16)


SPLITS = ("train", "val", "test")
"""The parts of BSDS500: 200, 100 and 200 images."""


class BoundaryPair(NamedTuple):
    """An image and the file of its annotations.

    Attributes:
        image: The image file.
        boundaries: The MATLAB file.
        name: The file name without its ending, which the two share.
    """

    image: Path
    boundaries: Path
    name: str


def find_boundary_pairs(
    folder: str | Path, split: str | Sequence[str] = "train"
) -> list[BoundaryPair]:
    """Pair the images of BSDS500 with their annotations by their names without ending.

    Args:
        folder: The folder that holds `images/SPLIT/*.jpg` and `groundTruth/SPLIT/*.mat`.
        split: "train", "val" or "test", or several of them.

    Returns:
        The pairs, sorted by name within each part.

    Raises:
        LabelFolderError: If a folder does not exist or holds no images, a file lacks its
            partner, or two images share a name.
        ValueError: If `split` is not as above.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from keras_rpe.data import find_boundary_pairs
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for file in ("images/val/plane.jpg", "groundTruth/val/plane.mat"):
        ...         (Path(folder) / file).parent.mkdir(parents=True)
        ...         (Path(folder) / file).touch()
        ...     [pair.name for pair in find_boundary_pairs(folder, "val")]
        ['plane']
    """
    folder = Path(folder)
    parts = (split,) if isinstance(split, str) else tuple(split)
    if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(SPLITS):
        raise ValueError(
            f"`split` must be one of {', '.join(SPLITS)}, or several of them. "
            f"Received: split={split!r}"
        )
    pairs: dict[str, BoundaryPair] = {}
    for part in parts:
        images, truths = folder / "images" / part, folder / "groundTruth" / part
        for place in (images, truths):
            if not place.is_dir():
                raise LabelFolderError(f"{place} is missing: split={part!r} needs this folder.")
        try:
            found = find_images(images)
        except ImageFileError as error:
            raise LabelFolderError(str(error)) from None
        files = {file.stem: file for file in sorted(truths.glob("*.mat"))}
        for image in found:
            if image.stem in pairs:
                raise LabelFolderError(f"{image} has the name of {pairs[image.stem].image}.")
            if image.stem not in files:
                raise LabelFolderError(f"{image} has no annotations {truths / image.stem}.mat.")
            pairs[image.stem] = BoundaryPair(image, files.pop(image.stem), image.stem)
        if files:
            raise LabelFolderError(f"{next(iter(files.values()))} has no image in {images}.")
    return list(pairs.values())


def read_boundary_pair(pair: BoundaryPair) -> tuple[np.ndarray, list[BoundaryAnnotation]]:
    """Read an image, uint8 (H, W, 3), with its annotations; an `ImageFileError` says what fails."""
    image = read_image(pair.image)
    if image.dtype != np.uint8:
        raise ImageFileError(f"{pair.image} holds values of type {image.dtype}, not of 8 bits.")
    annotations = read_boundaries(pair.boundaries)
    size = annotations[0].boundaries.shape
    if size != image.shape[:2]:
        raise ImageFileError(
            f"{pair.boundaries} has {size_text(size)} pixels, but its image {pair.image} has "
            f"{size_text(image.shape[:2])}."
        )
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image[..., :3]), annotations


_WANTED = re.compile(
    r"(?:\./)?BSR/BSDS500/data/"
    r"(?:(images)/(train|val|test)/([\w-]+\.jpg)|(groundTruth)/(train|val|test)/([\w-]+\.mat))",
    re.ASCII,
)
_MAX_FILE_BYTES = 16 * 2**20
_MAX_BYTES = 2 * 2**30  # of all files of an archive together, those passed over too
_LAST_BYTES = 2**20


def unpack_bsds500(archive: str | Path, folder: str | Path) -> Path:
    """Unpack `BSR_bsds500.tgz`, as Berkeley publishes it, into a folder for `bsds500`.

    Only `BSR/BSDS500/data/{images,groundTruth}/{train,val,test}/NAME.{jpg,mat}` are written, as
    `{images,groundTruth}/...` inside the folder; links, other files and other places are passed
    over. Each file is written whole or not at all.

    Args:
        archive: The archive, a tar file that gzip compressed.
        folder: The folder to write to, made where it is missing.

    Returns:
        The folder.

    Raises:
        ImageFileError: If the archive is missing, damaged, larger than 2 GiB unpacked, holds an
            image or annotation larger than 16 MiB, or none at all.
        OSError: If a file cannot be written.

    Example:
        >>> import io, tarfile, tempfile
        >>> from pathlib import Path
        >>> from keras_rpe.data import unpack_bsds500
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     archive = Path(folder) / "BSR_bsds500.tgz"
        ...     with tarfile.open(archive, "w:gz") as tar:
        ...         for name in ("BSR/BSDS500/data/images/val/plane.jpg", "BSR/README"):
        ...             tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        ...     unpacked = unpack_bsds500(archive, Path(folder) / "bsds500")
        ...     [file.relative_to(unpacked).as_posix() for file in unpacked.rglob("*.*")]
        ['images/val/plane.jpg']
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise ImageFileError(f"{archive} does not exist, or is not a file.")
    written = total = 0
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for entry in tar:
                total += tarfile.BLOCKSIZE + entry.size
                if total > _MAX_BYTES:
                    raise ImageFileError(f"{archive} holds more than {_MAX_BYTES} bytes.")
                match = _WANTED.fullmatch(entry.name)
                if match is None or not entry.isreg():
                    continue
                if entry.size > _MAX_FILE_BYTES:
                    raise ImageFileError(
                        f"{archive} holds {entry.name} of {entry.size} bytes, more than the "
                        f"{_MAX_FILE_BYTES} that are taken."
                    )
                file = tar.extractfile(entry)
                assert file is not None  # it is one for regular files
                target = folder.joinpath(*(part for part in match.groups() if part))
                target.parent.mkdir(parents=True, exist_ok=True)
                write_file(target, file.read())
                written += 1
            stream.read(_LAST_BYTES)  # the check sum lies behind the end of the tar file
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, OverflowError) as error:
        reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise ImageFileError(f"{archive} cannot be read as a tar.gz archive: {reason}.") from None
    if not written:
        raise ImageFileError(f"{archive} holds nothing in BSR/BSDS500/data.")
    return folder


def bsds500(
    folder: str | Path,
    split: str | Sequence[str] = "train",
    *,
    crop_size: int | tuple[int, int] | None = 320,
    batch_size: int = 4,
    shuffle: bool = True,
    augment: bool = True,
    zoom: tuple[float, float] = (0.5, 1.5),
    repeats: int = 1,
    seed: int | None = 0,
    names: Sequence[str] | None = None,
    workers: int = 0,
) -> tf.data.Dataset | keras.utils.PyDataset:
    """Read images and human boundaries of BSDS500 as batches for `fit`.

    The annotators of an image disagree. A pixel's share is the number of annotators whose line
    runs through it, divided by their number: 1 where all agree, 0 where nobody drew. Training
    takes pixels from a consensus upwards as boundary, those of share 0 as none, and leaves out
    those between, as well as the void ones of -1, which lie beyond the image.

    All files are read and checked before anything else, and up to 1 GiB of them stays in memory.
    Every epoch takes `repeats` crops of every image. Crops lie inside the image where they fit;
    beyond it, pixels are continued by reflection.

    Augmented crops are turned by one of 16 angles, mirrored in half of the cases, enlarged or
    reduced, and change in contrast, brightness and saturation. Each annotator's segmentation is
    turned, and its boundaries are drawn anew by the rule that the files follow, so that they stay
    whole and one pixel thin at every angle and size.

    The data set is for non-commercial research and education: Arbeláez et al., "Contour
    Detection and Hierarchical Image Segmentation", PAMI 2011.

    Args:
        folder: the folder that holds `images/SPLIT/*.jpg` and `groundTruth/SPLIT/*.mat`.
        split: "train", "val" or "test", or several of them.
        crop_size: side of the square crops, or (height, width), or None for whole images, which
            needs `batch_size=1` and `augment=False`.
        batch_size: crops per batch; the last batch of an epoch may be smaller.
        shuffle: new order and new crops in every epoch; False gives every epoch the same order
            and the same crops.
        augment: whether crops are turned, mirrored, enlarged and recolored.
        zoom: with `augment`, each crop is enlarged by a random factor from this range; factors
            below 1 reduce it and show more of the image.
        repeats: crops per image and epoch.
        seed: the same seed gives the same batches; None draws one from Python's generator.
        names: only these images, by their names without ending.
        workers: as in `LabelledImages.crops`.

    Returns:
        A dataset as that of `LabelledImages.crops`, of float32 images (B, h, w, 3) in 0..255 and
        float32 shares (B, h, w), each -1 or in 0..1.

    Raises:
        LabelFolderError: the folder cannot be used; the message lists every bad file.
        ValueError: an argument is not as above.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import scipy.io
        >>> from keras_rpe.data import bsds500, write_image
        >>> halves = np.repeat([[1, 2]], 16, axis=1).repeat(40, axis=0).astype("uint16")
        >>> drawn = halves != np.roll(halves, -1, axis=1)
        >>> truth = np.empty((1, 5), object)
        >>> truth[0, :] = [{"Segmentation": halves, "Boundaries": drawn}] * 5
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("images", "groundTruth"):
        ...         (Path(folder) / part / "train").mkdir(parents=True)
        ...     write_image(folder + "/images/train/plane.png", np.zeros((40, 32, 3), "uint8"))
        ...     scipy.io.savemat(folder + "/groundTruth/train/plane.mat", {"groundTruth": truth})
        ...     images, shares = next(iter(bsds500(folder, crop_size=24, batch_size=1)))
        >>> images.shape, shares.shape, float(shares[0].numpy().max())
        (TensorShape([1, 24, 24, 3]), TensorShape([1, 24, 24]), 1.0)
    """
    check_choice("augment", augment, (True, False))
    options = CropOptions(
        crop_size, batch_size, shuffle, augment, zoom, repeats, seed, workers=workers
    ).checked()
    size = options.crop_size
    if size is None and augment:
        raise ValueError("`augment` must be False with crop_size=None. Received: augment=True")
    pairs = chosen({pair.name: pair for pair in find_boundary_pairs(folder, split)}, names)
    area = (None, *(size or (None, None)))
    specs = tuple(keras.KerasTensor(shape, "float32") for shape in ((*area, 3), area))

    def crop(item: AnnotatedImage, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        shape = item.counts.shape
        if size is None:
            return plain_crop(item, (0, 0), shape)
        if not augment:
            return plain_crop(item, draw_corner(shape, size, rng), size)
        angle = 2 * math.pi * int(rng.integers(_TURNS)) / _TURNS
        factor = math.exp(rng.uniform(*np.log(zoom)))
        mirror = bool(rng.random() < 0.5)
        center = draw_center(shape, size, angle, factor, rng)
        image, shares = turned_crop(item, center, size, angle, factor, mirror)
        return recolored(image, rng), shares

    def load(pair: BoundaryPair) -> AnnotatedImage:
        return annotated_image(*read_boundary_pair(pair))

    def finish(crops: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
        images, shares = (np.stack(arrays) for arrays in zip(*crops))
        return images, shares

    return crop_batches(pairs, load, crop, finish, specs, options, load_first=True)
