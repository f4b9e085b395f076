"""The panoptic segments of COCO for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_rpe.data.coco_panoptic_file import (
    CocoPanopticExample,
    find_coco_panoptic,
    read_coco_panoptic,
)
from keras_rpe.data.label_folder_error import LabelFolderError
from keras_rpe.data.label_maps_builder import label_maps_example, label_maps_info
from keras_rpe.optional_import import optional_import

_DESCRIPTION = """
Photographs of COCO with the thing and the class, of things or stuff, of each pixel.
"""
_HOMEPAGE = "https://cocodataset.org"
_CITATION = """
@inproceedings{kirillov2019panoptic,
  author = {Kirillov, Alexander and He, Kaiming and Girshick, Ross and Rother, Carsten and
            Doll{\\'a}r, Piotr},
  title = {Panoptic Segmentation},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2019},
}
"""


def __getattr__(name: str) -> Any:
    # The base class lies in an extra, so that the class cannot be made with the module.
    if name == "CocoPanoptic":
        return _builder_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def coco_panoptic_source(manual_folder: str | Path) -> dict[str, tuple[Path, Path]]:
    """Find the panoptic segments of COCO in a folder that a user filled by hand.

    Args:
        manual_folder: Holds `annotations/panoptic_NAME.json` and, for each, the folder `NAME` of
            images, and in `annotations` the folder `panoptic_NAME` of PNG files.

    Returns:
        The JSON file and the folder of images of each NAME.

    Raises:
        LabelFolderError: If there is none, or a folder of images is missing.

    Example:
        >>> from keras_rpe.data.coco_panoptic_builder import coco_panoptic_source
        >>> coco_panoptic_source("no_such_folder")
        Traceback (most recent call last):
        ...
        keras_rpe.data.label_folder_error.LabelFolderError: no_such_folder holds no annotations/...
    """
    manual_folder = Path(manual_folder)
    found = {}
    for file in sorted((manual_folder / "annotations").glob("panoptic_*.json")):
        name = file.stem.removeprefix("panoptic_")
        images = manual_folder / name
        if not images.is_dir():
            raise LabelFolderError(f"{images} is missing: {file} needs this folder of images.")
        found[name] = file, images
    if not found:
        raise LabelFolderError(f"{manual_folder} holds no annotations/panoptic_*.json.")
    return found


@functools.cache
def _builder_class() -> type:
    tfds: Any = optional_import("tensorflow_datasets", "data")

    class CocoPanoptic(tfds.core.GeneratorBasedBuilder):
        """The panoptic segments of COCO with the instance and the class of each pixel.

        The files are not downloaded: `manual_dir` is a folder that `coco_panoptic_source` accepts,
        and each of its JSON files a split, such as "train2017". An example has `image`, uint8
        (H, W, 3); `instances` and `classes`, int32 (H, W), -1 where they are void; and `name`.
        """

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = (
            "Put annotations/panoptic_NAME.json, its PNG files as annotations/panoptic_NAME and "
            "its images as NAME into manual_dir, for each split NAME such as train2017."
        )

        def _info(self) -> Any:
            return label_maps_info(tfds, self, _DESCRIPTION, _HOMEPAGE, _CITATION)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            found = coco_panoptic_source(dl_manager.manual_dir)
            return {
                split: self._generate_examples(*find_coco_panoptic(*files))
                for split, files in found.items()
            }

        def _generate_examples(
            self, examples: list[CocoPanopticExample], classes: tuple[str, ...]
        ) -> Iterator[tuple[str, dict[str, Any]]]:
            for example in examples:
                yield label_maps_example(example.name, read_coco_panoptic(example, classes))

    # Found again by its name, as pickle and TensorFlow Datasets look for it.
    CocoPanoptic.__qualname__ = "CocoPanoptic"
    return CocoPanoptic
