"""The instances of COCO for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from keras_rpe.data.coco import find_coco_instances, read_coco_instances
from keras_rpe.data.coco_source import coco_source
from keras_rpe.data.label_maps_builder import NamedMaps, label_maps_builder

_DOC = """The instances of COCO with the instance and the class of each pixel.

The files are not downloaded: `manual_dir` is a folder that `coco_source` accepts, and each of its
JSON files a split, such as "train2017". An example has `image`, uint8 (H, W, 3); `instances` and
`classes`, int32 (H, W), -1 where they are void; and `name`.
"""
_DESCRIPTION = """
Photographs of COCO with the object and the class of each pixel; crowds are void.
"""
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


@functools.cache
def _builder_class() -> type:
    return label_maps_builder(
        __name__,
        "CocoInstances",
        _DOC,
        _splits,
        description=_DESCRIPTION,
        instructions=(
            "Put annotations/instances_NAME.json and its images as NAME into manual_dir, for each "
            "split NAME such as train2017."
        ),
        homepage="https://cocodataset.org",
        citation=_CITATION,
    )


def _splits(folder: Path, config: str | None) -> dict[str, NamedMaps]:
    return {split: _read(*files) for split, files in coco_source(folder, "instances").items()}


def _read(file: Path, images: Path) -> NamedMaps:
    examples, classes = find_coco_instances(file, images)
    return ((one.name, read_coco_instances(one, classes)) for one in examples)
