"""Images and label images: single files, folders, and random crops for training."""

import importlib
from typing import Any

from keras_rpe.data.augmentation import default_augmentation
from keras_rpe.data.boundary_file import BoundaryAnnotation, read_boundaries
from keras_rpe.data.boundary_pairs import BoundaryPair, find_boundary_pairs
from keras_rpe.data.bsds500 import bsds500
from keras_rpe.data.bsds500_archive import unpack_bsds500
from keras_rpe.data.class_names import VOC_CLASSES, read_class_names
from keras_rpe.data.coco_instances import coco_instances
from keras_rpe.data.coco_instances_file import (
    CocoInstancesExample,
    find_coco_instances,
    read_coco_instances,
)
from keras_rpe.data.coco_panoptic import coco_panoptic
from keras_rpe.data.coco_panoptic_file import (
    CocoPanopticExample,
    find_coco_panoptic,
    read_coco_panoptic,
)
from keras_rpe.data.digits import digits
from keras_rpe.data.image_file import (
    IMAGE_SUFFIXES,
    find_images,
    read_image,
    read_labels,
    write_image,
    write_labels,
)
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_folder import label_folder
from keras_rpe.data.label_folder_error import LabelFolderError
from keras_rpe.data.label_maps import VOID, LabelMaps
from keras_rpe.data.label_pair_maps import read_label_pair
from keras_rpe.data.label_pairs import (
    LabelPair,
    check_label_pairs,
    find_label_pairs,
    split_pairs,
)
from keras_rpe.data.pascal_voc import pascal_voc
from keras_rpe.data.pascal_voc_files import (
    PascalVocExample,
    find_pascal_voc,
    read_pascal_voc,
)
from keras_rpe.data.photo_augmentation import photo_augmentation
from keras_rpe.data.sbd_file import read_sbd

__all__ = [
    "IMAGE_SUFFIXES",
    "VOC_CLASSES",
    "VOID",
    "BoundaryAnnotation",
    "BoundaryPair",
    "CocoInstancesExample",
    "CocoPanopticExample",
    "ImageFileError",
    "LabelFolderError",
    "LabelMaps",
    "LabelPair",
    "PascalVocExample",
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


_BUILDERS = {
    "Bsds500": "bsds500_builder",
    "CocoInstances": "coco_instances_builder",
    "CocoPanoptic": "coco_panoptic_builder",
    "Digits": "digits_builder",
    "LabelFolder": "label_folder_builder",
    "PascalVoc": "pascal_voc_builder",
}


def __getattr__(name: str) -> Any:
    # Their base class lies in an extra, which only those who ask for it need.
    if name in _BUILDERS:
        return getattr(importlib.import_module(f"{__name__}.{_BUILDERS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
