"""BSDS500 for TensorFlow Datasets; the class is made when it is asked for."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.data.bsds import SPLITS, find_boundary_pairs, read_boundary_pair, unpack_bsds500
from keras_rpe.data.images import LabelFolderError
from keras_rpe.optional_import import optional_import

ARCHIVE = "BSR_bsds500.tgz"
"""The name of the archive that Berkeley publishes."""

_DESCRIPTION = """
Photographs with the boundaries that four to nine people drew into each. A pixel's share is the
number of annotators whose line runs through it, divided by their number. For non-commercial
research and education.
"""
_HOMEPAGE = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html"
_CITATION = """
@article{arbelaez2011contour,
  author = {Arbel{\\'a}ez, Pablo and Maire, Michael and Fowlkes, Charless and Malik, Jitendra},
  title = {Contour Detection and Hierarchical Image Segmentation},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume = {33},
  number = {5},
  pages = {898--916},
  year = {2011},
}
"""


def __getattr__(name: str) -> Any:
    # The base class lies in an extra, so that the class cannot be made with the module.
    if name == "Bsds500":
        return _builder_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def bsds500_source(manual_folder: str | Path, unpacked: str | Path) -> Path:
    """Find BSDS500 in a folder that a user filled by hand.

    Args:
        manual_folder: Holds `images` and `groundTruth`, or these two inside `BSR/BSDS500/data`,
            or the archive `BSR_bsds500.tgz`.
        unpacked: Where the archive is unpacked, if it is what there is.

    Returns:
        The folder with `images` and `groundTruth`.

    Raises:
        LabelFolderError: If there is none of the three.
        ImageFileError: If the archive cannot be used.

    Example:
        >>> from keras_rpe.data.bsds500_builder import bsds500_source
        >>> bsds500_source("no_such_folder", "unpacked")
        Traceback (most recent call last):
        ...
        keras_rpe.data.folder.LabelFolderError: no_such_folder holds neither ...
    """
    manual_folder = Path(manual_folder)
    for folder in (manual_folder, manual_folder / "BSR" / "BSDS500" / "data"):
        if (folder / "images").is_dir() and (folder / "groundTruth").is_dir():
            return folder
    if (manual_folder / ARCHIVE).is_file():
        return unpack_bsds500(manual_folder / ARCHIVE, unpacked)
    raise LabelFolderError(
        f"{manual_folder} holds neither images and groundTruth, nor these in BSR/BSDS500/data, "
        f"nor {ARCHIVE}."
    )


@functools.cache
def _builder_class() -> type:
    tfds: Any = optional_import("tensorflow_datasets", "data")

    class Bsds500(tfds.core.GeneratorBasedBuilder):
        """BSDS500 with the share of annotators that saw a boundary at each pixel.

        The files are not downloaded: `manual_dir` is a folder that `bsds500_source` accepts.
        Splits are those of "train", "val" and "test" that are there. An example has `image`, uint8
        (H, W, 3); `shares`, float32 (H, W) in 0..1; `annotators`, their number; and `name`.
        """

        VERSION = tfds.core.Version("1.0.0")
        RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012
        MANUAL_DOWNLOAD_INSTRUCTIONS = (
            f"Put {ARCHIVE}, or its folders images and groundTruth, into manual_dir."
        )

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "shares": tfds.features.Tensor(
                    shape=(None, None), dtype=np.float32, encoding=tfds.features.Encoding.ZLIB
                ),
                "annotators": tfds.features.Scalar(dtype=np.int32),
                "name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=_DESCRIPTION,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "shares"),
                homepage=_HOMEPAGE,
                citation=_CITATION,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            # Kept until the builder goes: examples are read after this method returns.
            self._unpacked = tempfile.TemporaryDirectory()
            folder = bsds500_source(dl_manager.manual_dir, self._unpacked.name)
            parts = [part for part in SPLITS if (folder / "images" / part).is_dir()]
            if not parts:
                raise LabelFolderError(f"{folder / 'images'} has none of {', '.join(SPLITS)}.")
            return {part: self._generate_examples(folder, part) for part in parts}

        def _generate_examples(
            self, folder: Path, part: str
        ) -> Iterator[tuple[str, dict[str, Any]]]:
            for pair in find_boundary_pairs(folder, part):
                image, annotations = read_boundary_pair(pair)
                drawn = np.stack([one.boundaries for one in annotations])
                yield (
                    pair.name,
                    {
                        "image": image,
                        "shares": drawn.mean(axis=0, dtype=np.float32),
                        "annotators": len(annotations),
                        "name": pair.name,
                    },
                )

    # Found again by its name, as pickle and TensorFlow Datasets look for it.
    Bsds500.__qualname__ = "Bsds500"
    return Bsds500
