"""PASCAL VOC 2012 for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from keras_rpe.data.images import LabelFolderError
from keras_rpe.data.label_maps_builder import NamedMaps, label_maps_builder
from keras_rpe.data.voc import (
    SPLITS,
    find_pascal_voc,
    read_pascal_voc,
)

ARCHIVE = "VOCtrainval_11-May-2012.tar"
"""The name of the archive of images and labels as it is published."""

SBD_FOLDER = "benchmark_RELEASE"
"""The folder that the archive of the Semantic Boundaries Dataset holds."""

_DOC = """PASCAL VOC 2012 with the instance and the class of each pixel.

The files are not downloaded: `manual_dir` is a folder that `pascal_voc_source` accepts. Splits are
"train", "val" and "trainval", and with SBD also "train_sbd". An example has `image`, uint8
(H, W, 3); `instances` and `classes`, int32 (H, W), -1 where they are void; and `name`.
"""
_DESCRIPTION = """
Photographs of PASCAL VOC 2012 with the object and the class, of 20, of each pixel; and those that
the Semantic Boundaries Dataset adds for training.
"""
_HOMEPAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
_CITATION = """
@article{everingham2015pascal,
  author = {Everingham, Mark and Eslami, S. M. Ali and Van Gool, Luc and Williams, Christopher K. I.
            and Winn, John and Zisserman, Andrew},
  title = {The {PASCAL} Visual Object Classes Challenge: A Retrospective},
  journal = {International Journal of Computer Vision},
  volume = {111},
  pages = {98--136},
  year = {2015},
}
"""


def __getattr__(name: str) -> Any:
    # The base class lies in an extra, so that the class cannot be made with the module.
    if name == "PascalVoc":
        return _builder_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def pascal_voc_source(manual_folder: str | Path) -> tuple[Path, Path | None]:
    """Find PASCAL VOC 2012, and SBD where it is there, in a folder that a user filled by hand.

    Args:
        manual_folder: Holds `VOCdevkit`, or the archive of the published name, and may hold
            `benchmark_RELEASE`.

    Returns:
        The folder or archive of VOC, and the folder of SBD or `None`.

    Raises:
        LabelFolderError: If VOC is missing.

    Example:
        >>> from keras_rpe.data.pascal_voc_builder import pascal_voc_source
        >>> pascal_voc_source("no_such_folder")
        Traceback (most recent call last):
        ...
        keras_rpe.data.folder.LabelFolderError: no_such_folder holds neither ...
    """
    manual_folder = Path(manual_folder)
    sbd = manual_folder / SBD_FOLDER
    for source in (manual_folder / "VOCdevkit", manual_folder / ARCHIVE):
        if source.exists():
            return source, sbd if sbd.is_dir() else None
    raise LabelFolderError(f"{manual_folder} holds neither VOCdevkit nor {ARCHIVE}.")


@functools.cache
def _builder_class() -> type:
    return label_maps_builder(
        __name__,
        "PascalVoc",
        _DOC,
        _splits,
        description=_DESCRIPTION,
        instructions=(
            f"Put {ARCHIVE}, or its folder VOCdevkit, into manual_dir, and the folder "
            f"{SBD_FOLDER} of SBD if you have it."
        ),
        homepage=_HOMEPAGE,
        citation=_CITATION,
    )


def _splits(folder: Path, config: str | None) -> dict[str, NamedMaps]:
    source, sbd = pascal_voc_source(folder)
    parts = {split: find_pascal_voc(source, split) for split in SPLITS}
    if sbd is not None:
        parts["train_sbd"] = find_pascal_voc(source, "train", sbd)
    return {
        split: ((one.name, read_pascal_voc(one)) for one in found) for split, found in parts.items()
    }
