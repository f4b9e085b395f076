"""Folders of label images for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_maps import LabelMaps
from keras_rpe.data.label_maps_builder import label_maps_example, label_maps_info
from keras_rpe.data.label_pair_maps import read_label_pair
from keras_rpe.data.label_pairs import LabelPair, check_label_pairs, find_label_pairs
from keras_rpe.optional_import import optional_import

CONFIGS: dict[str, int | None] = {"plain": None, "void_255": 255}
"""The configurations, and the number that void pixels have in the files of each."""

_DESCRIPTION = """
Images with the instance and the class of each pixel, from a folder of label images.
"""
_HOMEPAGE = ""
_CITATION = ""


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
    tfds: Any = optional_import("tensorflow_datasets", "data")

    class LabelFolder(tfds.core.GeneratorBasedBuilder):
        """A folder of label images with the instance and the class of each pixel.

        `manual_dir` holds the folders `images`, `instances` and, where there are several classes,
        `semantic`, as `label_folder` takes them; there is one split, "train". An example has
        `image`, uint8 (H, W, 3); `instances` and `classes`, int32 (H, W); and `name`. With the
        configuration "void_255", 255 is void in the files, and -1 in the examples.
        """

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = (
            "Put the folders images and instances, and semantic for classes, into manual_dir."
        )
        BUILDER_CONFIGS = [  # noqa: RUF012
            tfds.core.BuilderConfig(name=name, description=f"Void pixels: {void}.")
            for name, void in CONFIGS.items()
        ]

        def _info(self) -> Any:
            return label_maps_info(tfds, self, _DESCRIPTION, _HOMEPAGE, _CITATION)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            folder = Path(dl_manager.manual_dir)
            classes = "semantic/*" if (folder / "semantic").is_dir() else None
            pairs = find_label_pairs(folder, classes=classes)
            check_label_pairs(pairs, classes is not None)
            return {"train": self._generate_examples(pairs)}

        def _generate_examples(
            self, pairs: list[LabelPair]
        ) -> Iterator[tuple[str, dict[str, Any]]]:
            void = CONFIGS[self.builder_config.name]
            for pair in pairs:
                yield label_maps_example(pair.name, label_folder_maps(pair, void))

    # Found again by its name, as pickle and TensorFlow Datasets look for it.
    LabelFolder.__qualname__ = "LabelFolder"
    return LabelFolder
