"""Write scenes of PASCAL VOC's classes, in its layout, in SBD's, and as a tar archive."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image

VOID_INDEX = 255


COLORS = np.random.default_rng(1).integers(0, 256, (256, 3)) * (np.arange(256) > 0)[:, None]
"""The palette; index 0 is black."""


def scene(
    seed: int, height: int = 48, width: int = 64, classes: int = 20
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image with the objects and the classes of its pixels, as VOC stores them.

    Two to four ellipses in the color of their class lie on gray noise, each with an outline of
    void, and the first is cut in two by a bar of background.
    """
    rng = np.random.default_rng([8, seed])
    rows, columns = np.indices((height, width))
    image = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
    instances = np.zeros((height, width), np.uint8)
    kinds = np.zeros((height, width), np.uint8)
    for number in range(1, int(rng.integers(2, 5)) + 1):
        kind = int(rng.integers(1, classes + 1))
        center = rng.uniform(0.2, 0.8, 2) * (height, width)
        reach = rng.uniform(0.15, 0.3, 2) * (height, width)
        distance = np.hypot((rows - center[0]) / reach[0], (columns - center[1]) / reach[1])
        inside, outline = distance < 1, (distance >= 1) & (distance < 1.15)
        image[inside] = COLORS[kind]
        instances[outline] = kinds[outline] = VOID_INDEX
        instances[inside], kinds[inside] = number, kind
    bar = abs(columns - width // 2) <= 1
    image[bar], instances[bar], kinds[bar] = 110, 0, 0
    # Objects that others hide leave no gap, as in VOC.
    ids = [one for one in np.unique(instances) if one not in (0, VOID_INDEX)]
    renumbered = np.arange(256, dtype=np.uint8)
    renumbered[ids] = np.arange(1, len(ids) + 1)
    return image, renumbered[instances], kinds


def as_read(labels: np.ndarray) -> np.ndarray:
    """What readers make of stored labels, int32: void is -1."""
    return np.where(labels == VOID_INDEX, -1, labels.astype(np.int32))


def save_palette(path: Path, indices: np.ndarray) -> None:
    """Write a PNG with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(indices)
    picture.putpalette(COLORS.ravel().tolist())
    picture.save(path)


def save_jpeg(path: Path, image: np.ndarray) -> None:
    """Write a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=98, subsampling=0)


def write_voc(
    folder: Path, train: int = 7, val: int = 3, **size: int
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Write `VOCdevkit/VOC2012` into a folder and return the scene of each name.

    The lists are those of train, val and trainval; names are 2008_000001 and on.
    """
    root = folder / "VOCdevkit" / "VOC2012"
    scenes = {f"2008_{seed:06d}": scene(seed, **size) for seed in range(1, train + val + 1)}
    for name, (image, instances, classes) in scenes.items():
        save_jpeg(root / "JPEGImages" / f"{name}.jpg", image)
        save_palette(root / "SegmentationObject" / f"{name}.png", instances)
        save_palette(root / "SegmentationClass" / f"{name}.png", classes)
    names = list(scenes)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, listed in (("train", names[:train]), ("val", names[train:]), ("trainval", names)):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed))
    return scenes


def pack_voc(folder: Path, archive: Path) -> Path:
    """Put `VOCdevkit` of a folder into a tar archive."""
    with tarfile.open(archive, "w") as tar:
        tar.add(folder / "VOCdevkit", "VOCdevkit")
    return archive


def write_sbd(
    folder: Path, names: list[str], **size: int
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Write `img`, `inst` and `cls` into a folder and return the scene of each name.

    As in SBD, there are no void pixels.
    """
    scenes = {}
    for seed, name in enumerate(names, start=500):
        image, instances, classes = scene(seed, **size)
        void = instances == VOID_INDEX
        instances, classes = np.where(void, 0, instances), np.where(void, 0, classes)
        scenes[name] = image, instances, classes
        save_jpeg(folder / "img" / f"{name}.jpg", image)
        save_sbd(folder, name, instances, classes)
    return scenes


def save_sbd(
    folder: Path,
    name: str,
    instances: np.ndarray,
    classes: np.ndarray,
    categories: np.ndarray | None = None,
) -> None:
    """Write the two MATLAB files of an image, with the fields that SBD's have."""
    if categories is None:
        ids = range(1, int(instances.max()) + 1)
        categories = np.array([[classes[instances == one].max()] for one in ids], np.uint8)
    boundaries = np.empty((len(categories), 1), object)
    for row in range(len(categories)):
        boundaries[row, 0] = scipy.sparse.csc_matrix(instances == row + 1)
    of_instances = {
        "Boundaries": boundaries,
        "Segmentation": instances.astype(np.uint8),
        "Categories": categories,
    }
    present = np.unique(classes[classes > 0])[:, None].astype(np.uint8)
    of_classes = {"Segmentation": classes.astype(np.uint8), "CategoriesPresent": present}
    for part, variable, fields in (
        ("inst", "GTinst", of_instances),
        ("cls", "GTcls", of_classes),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        file = folder / part / f"{name}.mat"
        scipy.io.savemat(file, {variable: fields}, do_compression=True)
