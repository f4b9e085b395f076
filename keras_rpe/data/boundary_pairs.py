"""Pairs of images and the boundaries drawn into them, in the folders of BSDS500."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_rpe.data.boundary_file import BoundaryAnnotation, read_boundaries
from keras_rpe.data.image_file import find_images, read_image
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_folder_error import LabelFolderError

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
    if not folder.is_dir():
        raise LabelFolderError(f"folder needs an existing folder. Received: folder={str(folder)!r}")
    pairs: dict[str, BoundaryPair] = {}
    for part in checked_splits(split):
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


def checked_splits(split: str | Sequence[str]) -> tuple[str, ...]:
    """Return the parts that an argument `split` names, or raise `ValueError`."""
    parts = (split,) if isinstance(split, str) else tuple(split)
    if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(SPLITS):
        raise ValueError(
            f"split needs one of {', '.join(SPLITS)}, or several of them. Received: split={split!r}"
        )
    return parts


def read_boundary_pair(pair: BoundaryPair) -> tuple[np.ndarray, list[BoundaryAnnotation]]:
    """Read an image with its annotations.

    Args:
        pair: The two files.

    Returns:
        The image, uint8 (H, W, 3), and the annotations, each (H, W).

    Raises:
        ImageFileError: If a file cannot be used, the image is not one of 8 bits, or the sizes of
            the two differ.
    """
    image = read_image(pair.image)
    if image.dtype != np.uint8:
        raise ImageFileError(f"{pair.image} holds values of type {image.dtype}, not of 8 bits.")
    annotations = read_boundaries(pair.boundaries)
    size = annotations[0].boundaries.shape
    if size != image.shape[:2]:
        raise ImageFileError(
            f"{pair.boundaries} has {size[0]} x {size[1]} pixels, but its image {pair.image} has "
            f"{image.shape[0]} x {image.shape[1]}."
        )
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image[..., :3]), annotations
