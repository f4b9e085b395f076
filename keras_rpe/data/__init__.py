"""Images and label images: single files, folders, and random crops for training."""

from typing import Any

from keras_rpe.data.augmentation import default_augmentation
from keras_rpe.data.boundary_file import BoundaryAnnotation, read_boundaries
from keras_rpe.data.boundary_pairs import BoundaryPair, find_boundary_pairs
from keras_rpe.data.bsds500 import bsds500
from keras_rpe.data.bsds500_archive import unpack_bsds500
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
from keras_rpe.data.label_pairs import (
    LabelPair,
    check_label_pairs,
    find_label_pairs,
    split_pairs,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "BoundaryAnnotation",
    "BoundaryPair",
    "ImageFileError",
    "LabelFolderError",
    "LabelPair",
    "bsds500",
    "check_label_pairs",
    "default_augmentation",
    "digits",
    "find_boundary_pairs",
    "find_images",
    "find_label_pairs",
    "label_folder",
    "read_boundaries",
    "read_image",
    "read_labels",
    "split_pairs",
    "unpack_bsds500",
    "write_image",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    # Their base class lies in an extra, which only those who ask for it need.
    if name == "Bsds500":
        from keras_rpe.data import bsds500_builder

        return bsds500_builder.Bsds500
    if name == "Digits":
        from keras_rpe.data import digits_builder

        return digits_builder.Digits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
