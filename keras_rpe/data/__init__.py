"""Images and label images: single files, folders, and random crops for training."""

import importlib
from typing import Any

from keras_rpe.data.augmentation import default_augmentation, photo_augmentation
from keras_rpe.data.bsds import (
    BoundaryAnnotation,
    BoundaryPair,
    bsds500,
    find_boundary_pairs,
    read_boundaries,
    unpack_bsds500,
)
from keras_rpe.data.coco import (
    coco_instances,
    coco_panoptic,
    find_coco_instances,
    find_coco_panoptic,
    read_coco_instances,
    read_coco_panoptic,
)
from keras_rpe.data.digits import digits
from keras_rpe.data.folder import (
    LabelPair,
    check_label_pairs,
    find_label_pairs,
    label_folder,
    read_label_pair,
    split_pairs,
)
from keras_rpe.data.images import (
    ImageFileError,
    LabelFolderError,
    find_images,
    read_image,
    read_labels,
    write_image,
    write_labels,
)
from keras_rpe.data.labels import VOC_CLASSES, VOID, LabelMaps, read_class_names
from keras_rpe.data.voc import (
    find_pascal_voc,
    pascal_voc,
    read_pascal_voc,
    read_sbd,
)

__all__ = [
    "VOC_CLASSES",
    "VOID",
    "BoundaryAnnotation",
    "BoundaryPair",
    "ImageFileError",
    "LabelFolderError",
    "LabelMaps",
    "LabelPair",
    "bsds500",
    "check_label_pairs",
    "coco_instances",
    "coco_panoptic",
    "default_augmentation",
    "digits",
    "find_boundary_pairs",
    "find_coco_instances",
    "find_coco_panoptic",
    "find_images",
    "find_label_pairs",
    "find_pascal_voc",
    "label_folder",
    "pascal_voc",
    "photo_augmentation",
    "read_boundaries",
    "read_class_names",
    "read_coco_instances",
    "read_coco_panoptic",
    "read_image",
    "read_label_pair",
    "read_labels",
    "read_pascal_voc",
    "read_sbd",
    "split_pairs",
    "unpack_bsds500",
    "write_image",
    "write_labels",
]


_BUILDERS = ("Bsds500", "CocoInstances", "CocoPanoptic", "Digits", "LabelFolder", "PascalVoc")


def __getattr__(name: str) -> Any:
    # Their base class comes with an extra, which only those who ask for it need.
    if name in _BUILDERS:
        return getattr(importlib.import_module("keras_rpe.data.builders"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_BUILDERS])
