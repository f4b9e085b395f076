"""The panoptic segments of COCO for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from keras_rpe.data.coco import find_coco_panoptic, read_coco_panoptic
from keras_rpe.data.coco_source import coco_source
from keras_rpe.data.label_maps_builder import NamedMaps, label_maps_builder

_DOC = """The panoptic segments of COCO with the instance and the class of each pixel.

The files are not downloaded: `manual_dir` is a folder that `coco_source` accepts, and each of its
JSON files a split, such as "train2017". An example has `image`, uint8 (H, W, 3); `instances` and
`classes`, int32 (H, W), -1 where they are void; and `name`.
"""
_DESCRIPTION = """
Photographs of COCO with the thing and the class, of things or stuff, of each pixel.
"""
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


@functools.cache
def _builder_class() -> type:
    return label_maps_builder(
        __name__,
        "CocoPanoptic",
        _DOC,
        _splits,
        description=_DESCRIPTION,
        instructions=(
            "Put annotations/panoptic_NAME.json, its PNG files as annotations/panoptic_NAME and "
            "its images as NAME into manual_dir, for each split NAME such as train2017."
        ),
        homepage="https://cocodataset.org",
        citation=_CITATION,
    )


def _splits(folder: Path, config: str | None) -> dict[str, NamedMaps]:
    return {split: _read(*files) for split, files in coco_source(folder, "panoptic").items()}


def _read(file: Path, images: Path) -> NamedMaps:
    examples, classes = find_coco_panoptic(file, images)
    return ((one.name, read_coco_panoptic(one, classes)) for one in examples)
