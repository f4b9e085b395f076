"""Folders of label images for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.data.folder import LabelPair, check_label_pairs, find_label_pairs, read_label_pair
from keras_rpe.data.images import ImageFileError
from keras_rpe.data.label_maps_builder import NamedMaps, label_maps_builder
from keras_rpe.data.labels import LabelMaps

CONFIGS: dict[str, int | None] = {"plain": None, "void_255": 255}
"""The configurations, and the number that void pixels have in the files of each."""

_DOC = """A folder of label images with the instance and the class of each pixel.

`manual_dir` holds the folders `images`, `instances` and, where there are several classes,
`semantic`, as `label_folder` takes them; there is one split, "train". An example has `image`, uint8
(H, W, 3); `instances` and `classes`, int32 (H, W); and `name`. With the configuration "void_255",
255 is void in the files, and -1 in the examples.
"""
_DESCRIPTION = """
Images with the instance and the class of each pixel, from a folder of label images.
"""


def __getattr__(name: str) -> Any:
    # The base class lies in an extra, so that the class cannot be made with the module.
    if name == "LabelFolder":
        return _builder_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def label_folder_maps(pair: LabelPair, void: int | None) -> LabelMaps:
    """Read an image of 8 bits with its instances and classes; without a file of these, all are 1.

    Args:
        pair: What `find_label_pairs` found.
        void: The number of void pixels in the files, or `None`.

    Returns:
        The image and its maps, as `read_label_pair` reads them.

    Raises:
        ImageFileError: If a file cannot be used, or the image is not one of 8 bits.
    """
    image, instances, classes = read_label_pair(pair, void)
    if image.dtype != np.uint8:
        raise ImageFileError(f"{pair.image} holds values of type {image.dtype}, not of 8 bits.")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    classes = instances.clip(max=1) if classes is None else classes
    return LabelMaps(np.ascontiguousarray(image[..., :3]), instances, classes)


@functools.cache
def _builder_class() -> type:
    return label_maps_builder(
        __name__,
        "LabelFolder",
        _DOC,
        _splits,
        description=_DESCRIPTION,
        instructions=(
            "Put the folders images and instances, and semantic for classes, into manual_dir."
        ),
        configs=[(name, f"Void pixels: {void}.") for name, void in CONFIGS.items()],
    )


def _splits(folder: Path, config: str | None) -> dict[str, NamedMaps]:
    assert config is not None  # since the class has some
    classes = "semantic/*" if (folder / "semantic").is_dir() else None
    pairs = find_label_pairs(folder, classes=classes)
    check_label_pairs(pairs, classes is not None)
    return {"train": ((pair.name, label_folder_maps(pair, CONFIGS[config])) for pair in pairs)}
