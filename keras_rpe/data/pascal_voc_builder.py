"""PASCAL VOC 2012 for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_rpe.data.label_folder_error import LabelFolderError
from keras_rpe.data.label_maps_builder import label_maps_example, label_maps_info
from keras_rpe.data.pascal_voc_files import (
    SPLITS,
    PascalVocExample,
    find_pascal_voc,
    read_pascal_voc,
)
from keras_rpe.optional_import import optional_import

ARCHIVE = "VOCtrainval_11-May-2012.tar"
"""The name of the archive of images and labels as it is published."""

SBD_FOLDER = "benchmark_RELEASE"
"""The folder that the archive of the Semantic Boundaries Dataset holds."""

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
        keras_rpe.data.label_folder_error.LabelFolderError: no_such_folder holds neither ...
    """
    manual_folder = Path(manual_folder)
    sbd = manual_folder / SBD_FOLDER
    for source in (manual_folder / "VOCdevkit", manual_folder / ARCHIVE):
        if source.exists():
            return source, sbd if sbd.is_dir() else None
    raise LabelFolderError(f"{manual_folder} holds neither VOCdevkit nor {ARCHIVE}.")


@functools.cache
def _builder_class() -> type:
    tfds: Any = optional_import("tensorflow_datasets", "data")

    class PascalVoc(tfds.core.GeneratorBasedBuilder):
        """PASCAL VOC 2012 with the instance and the class of each pixel.

        The files are not downloaded: `manual_dir` is a folder that `pascal_voc_source` accepts.
        Splits are "train", "val" and "trainval", and with SBD also "train_sbd". An example has
        `image`, uint8 (H, W, 3); `instances` and `classes`, int32 (H, W), -1 where they are void;
        and `name`.
        """

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = (
            f"Put {ARCHIVE}, or its folder VOCdevkit, into manual_dir, and the folder "
            f"{SBD_FOLDER} of SBD if you have it."
        )

        def _info(self) -> Any:
            return label_maps_info(tfds, self, _DESCRIPTION, _HOMEPAGE, _CITATION)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            source, sbd = pascal_voc_source(dl_manager.manual_dir)
            parts = {split: find_pascal_voc(source, split) for split in SPLITS}
            if sbd is not None:
                parts["train_sbd"] = find_pascal_voc(source, "train", sbd)
            return {split: self._generate_examples(found) for split, found in parts.items()}

        def _generate_examples(
            self, examples: list[PascalVocExample]
        ) -> Iterator[tuple[str, dict[str, Any]]]:
            for example in examples:
                yield label_maps_example(example.name, read_pascal_voc(example))

    # Found again by its name, as pickle and TensorFlow Datasets look for it.
    PascalVoc.__qualname__ = "PascalVoc"
    return PascalVoc
