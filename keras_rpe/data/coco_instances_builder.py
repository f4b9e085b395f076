"""The instances of COCO for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_rpe.data.coco_instances_file import (
    CocoInstancesExample,
    find_coco_instances,
    read_coco_instances,
)
from keras_rpe.data.label_folder_error import LabelFolderError
from keras_rpe.data.label_maps_builder import label_maps_example, label_maps_info
from keras_rpe.optional_import import optional_import

_DESCRIPTION = """
Photographs of COCO with the object and the class of each pixel; crowds are void.
"""
_HOMEPAGE = "https://cocodataset.org"
_CITATION = """
@inproceedings{lin2014microsoft,
  author = {Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and Perona, Pietro
            and Ramanan, Deva and Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  title = {Microsoft {COCO}: Common Objects in Context},
  booktitle = {European Conference on Computer Vision},
  year = {2014},
}
"""


def __getattr__(name: str) -> Any:
    # The base class lies in an extra, so that the class cannot be made with the module.
    if name == "CocoInstances":
        return _builder_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def coco_instances_source(manual_folder: str | Path) -> dict[str, tuple[Path, Path]]:
    """Find the instances of COCO in a folder that a user filled by hand.

    Args:
        manual_folder: Holds `annotations/instances_NAME.json` and, for each, the folder `NAME` of
            images.

    Returns:
        The JSON file and the folder of images of each NAME.

    Raises:
        LabelFolderError: If there is none, or a folder of images is missing.

    Example:
        >>> from keras_rpe.data.coco_instances_builder import coco_instances_source
        >>> coco_instances_source("no_such_folder")
        Traceback (most recent call last):
        ...
        keras_rpe.data.label_folder_error.LabelFolderError: no_such_folder holds no annotations/...
    """
    manual_folder = Path(manual_folder)
    found = {}
    for file in sorted((manual_folder / "annotations").glob("instances_*.json")):
        name = file.stem.removeprefix("instances_")
        images = manual_folder / name
        if not images.is_dir():
            raise LabelFolderError(f"{images} is missing: {file} needs this folder of images.")
        found[name] = file, images
    if not found:
        raise LabelFolderError(f"{manual_folder} holds no annotations/instances_*.json.")
    return found


@functools.cache
def _builder_class() -> type:
    tfds: Any = optional_import("tensorflow_datasets", "data")

    class CocoInstances(tfds.core.GeneratorBasedBuilder):
        """The instances of COCO with the instance and the class of each pixel.

        The files are not downloaded: `manual_dir` is a folder that `coco_instances_source` accepts,
        and each of its JSON files a split, such as "train2017". An example has `image`, uint8
        (H, W, 3); `instances` and `classes`, int32 (H, W), -1 where they are void; and `name`.
        """

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = (
            "Put annotations/instances_NAME.json and its images as NAME into manual_dir, for each "
            "split NAME such as train2017."
        )

        def _info(self) -> Any:
            return label_maps_info(tfds, self, _DESCRIPTION, _HOMEPAGE, _CITATION)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            found = coco_instances_source(dl_manager.manual_dir)
            return {
                split: self._generate_examples(*find_coco_instances(*files))
                for split, files in found.items()
            }

        def _generate_examples(
            self, examples: list[CocoInstancesExample], classes: tuple[str, ...]
        ) -> Iterator[tuple[str, dict[str, Any]]]:
            for example in examples:
                yield label_maps_example(example.name, read_coco_instances(example, classes))

    # Found again by its name, as pickle and TensorFlow Datasets look for it.
    CocoInstances.__qualname__ = "CocoInstances"
    return CocoInstances
