"""The scenes of digits for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.data.digits import CANVAS, SPLITS, digit_images, digit_scene
from keras_rpe.data.images import LabelFolderError
from keras_rpe.optional_import import optional_import

SCENES = {"train": 10_000, "test": 2_000}
"""How many scenes each split has."""

_DESCRIPTION = """
Handwritten digits of MNIST on black, 0 to 9 an image, at nine places that overlap. A digit has the
color of its class, and in a third of the images all digits are of one class, so that only the
instance tells them apart. The scenes of the digits tutorial of the paper cited.
"""
_HOMEPAGE = "https://doi.org/10.1109/CVPR.2018.00940"
_CITATION = """
@inproceedings{kong2018recurrent,
  author = {Kong, Shu and Fowlkes, Charless},
  title = {Recurrent Pixel Embedding for Instance Grouping},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2018},
}
"""


def __getattr__(name: str) -> Any:
    # The base class lies in an extra, so that the class cannot be made with the module.
    if name == "Digits":
        return _builder_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def digits_source(manual_folder: str | Path) -> Path | None:
    """Find the images of digits in a folder that a user filled by hand.

    Args:
        manual_folder: Holds one .npz file, or none.

    Returns:
        The file, or `None`, which is MNIST by Keras, where the folder has none or is missing.

    Raises:
        LabelFolderError: If there are several.

    Example:
        >>> from keras_rpe.data.digits_builder import digits_source
        >>> print(digits_source("no_such_folder"))
        None
    """
    files = sorted(Path(manual_folder).glob("*.npz"))
    if len(files) > 1:
        raise LabelFolderError(
            f"{manual_folder} holds {len(files)} .npz files, such as {files[0].name} and "
            f"{files[1].name}, not one."
        )
    return files[0] if files else None


@functools.cache
def _builder_class() -> type:
    tfds: Any = optional_import("tensorflow_datasets", "data")

    class Digits(tfds.core.GeneratorBasedBuilder):
        """Scenes of handwritten digits with the instance and the class of each pixel.

        They are drawn from the .npz file in `manual_dir`, see `digits`, or from MNIST, which Keras
        downloads, where there is none. The splits "train" and "test" share no image of a digit. An
        example has `image`, uint8 (64, 64, 3); `instances`, uint8 (64, 64), 0 for the background
        and ids from 1; `classes`, uint8 (64, 64), 0 for the background, 1 to 9 for these digits,
        and 10 for the 0; and `count`, the number of digits that can be seen.
        """

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = (
            "Put an .npz file with x_train, y_train, x_test and y_test, or x and y, into "
            "manual_dir, or leave it empty for MNIST."
        )

        def _info(self) -> Any:
            labels = tfds.features.Tensor(
                shape=(CANVAS, CANVAS), dtype=np.uint8, encoding=tfds.features.Encoding.ZLIB
            )
            features = {
                "image": tfds.features.Image(shape=(CANVAS, CANVAS, 3)),
                "instances": labels,
                "classes": labels,
                "count": tfds.features.Scalar(dtype=np.int32),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=_DESCRIPTION,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "instances"),
                homepage=_HOMEPAGE,
                citation=_CITATION,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            try:
                source = digits_source(dl_manager.manual_dir)
            except AssertionError:  # It is missing or empty.
                source = None
            return {
                split: self._generate_examples(digit_images(source, split), split)
                for split in SPLITS
            }

        def _generate_examples(
            self, images: list[np.ndarray], split: str
        ) -> Iterator[tuple[int, dict[str, Any]]]:
            for number in range(SCENES[split]):
                rng = np.random.default_rng([0, SPLITS.index(split), number])
                image, instances, classes = digit_scene(rng, images)
                yield (
                    number,
                    {
                        "image": image,
                        "instances": instances.astype(np.uint8),
                        "classes": classes.astype(np.uint8),
                        "count": int(instances.max()),
                    },
                )

    # Found again by its name, as pickle and TensorFlow Datasets look for it.
    Digits.__qualname__ = "Digits"
    return Digits
