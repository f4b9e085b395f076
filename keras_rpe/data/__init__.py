"""Images and label images: single files, folders, and random crops for training."""

import importlib
from typing import Any

from keras_rpe.data.bsds import (
    BoundaryAnnotation,
    BoundaryPair,
    bsds500,
    find_boundary_pairs,
    read_boundaries,
    unpack_bsds500,
)
from keras_rpe.data.coco import coco_instances, coco_panoptic
from keras_rpe.data.digits import digits
from keras_rpe.data.folder import label_folder
from keras_rpe.data.images import (
    ImageFileError,
    LabelFolderError,
    find_images,
    read_channels,
    read_image,
    read_labels,
    read_pixel_size,
    write_image,
    write_labels,
)
from keras_rpe.data.labelled_images import LabelledImages, LabelMaps
from keras_rpe.data.labels import VOC_CLASSES, VOID, read_class_names
from keras_rpe.data.outlines import polygons, write_coco, write_geojson, write_imagej_rois
from keras_rpe.data.voc import pascal_voc

__all__ = [
    "VOC_CLASSES",
    "VOID",
    "BoundaryAnnotation",
    "BoundaryPair",
    "ImageFileError",
    "LabelFolderError",
    "LabelMaps",
    "LabelledImages",
    "bsds500",
    "coco_instances",
    "coco_panoptic",
    "digits",
    "find_boundary_pairs",
    "find_images",
    "label_folder",
    "pascal_voc",
    "polygons",
    "read_boundaries",
    "read_channels",
    "read_class_names",
    "read_image",
    "read_labels",
    "read_pixel_size",
    "unpack_bsds500",
    "write_coco",
    "write_geojson",
    "write_image",
    "write_imagej_rois",
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
