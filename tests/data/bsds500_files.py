"""Write files in the layout of BSDS500, and tar archives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.io
from skimage.morphology import thin

from keras_rpe.data import write_image


def segmentation(height: int = 40, width: int = 48, shift: int = 0) -> np.ndarray:
    """A disc on two halves, moved sideways by some pixels."""
    rows, columns = np.indices((height, width))
    columns = columns - shift
    disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 4) ** 2
    return np.where(disc, 3, 1 + (rows > height / 2)).astype(np.uint16)


def drawn(segments: np.ndarray) -> np.ndarray:
    """The boundaries of a segmentation, pixel by pixel, as uint8."""
    marks = np.zeros(segments.shape, bool)
    height, width = segments.shape
    for row in range(height):
        for column in range(width):
            near = segments[row : row + 2, column : column + 2]
            right, below, across = near[:1, -1], near[-1:, 0], near[-1:, -1]
            marks[row, column] = any((one != near[0, 0]).any() for one in (right, below, across))
    return thin(marks).astype(np.uint8)


def annotator(segments: np.ndarray, boundaries: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The two maps of an annotator."""
    boundaries = drawn(segments) if boundaries is None else boundaries
    return {"Segmentation": segments, "Boundaries": boundaries}


def write_truth(path: Path, annotators: list[object]) -> None:
    """Write a cell of structs, as the files of BSDS500 hold it."""
    cell = np.empty((1, len(annotators)), object)
    for index, one in enumerate(annotators):
        cell[0, index] = one
    scipy.io.savemat(path, {"groundTruth": cell}, do_compression=True)


def add(folder: Path, name: str, split: str = "train", annotators: int = 4, **size: int) -> None:
    """Write an image whose red is the first annotator's segmentation times 80."""
    segments = [segmentation(**size, shift=shift) for shift in range(annotators)]
    for part in ("images", "groundTruth"):
        (folder / part / split).mkdir(parents=True, exist_ok=True)
    rows, columns = np.indices(segments[0].shape)
    image = np.stack([segments[0] * 80, rows, columns], -1).astype(np.uint8)
    write_image(folder / "images" / split / f"{name}.png", image)
    write_truth(folder / "groundTruth" / split / f"{name}.mat", [annotator(s) for s in segments])


def tar_file(
    path: Path,
    contents: Iterable[tuple[str, bytes]],
    links: Iterable[tuple[str, str, bytes]] = (),
    mode: str = "w",
    form: int = tarfile.GNU_FORMAT,
) -> Path:
    """Write a tar archive of contents by name, then links by name, target and type."""
    with tarfile.open(path, mode, format=form) as tar:
        for name, content in contents:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target, kind in links:
            info = tarfile.TarInfo(name)
            info.linkname, info.type = target, kind
            tar.addfile(info)
    return path
