"""PASCAL VOC 2012, with SBD's labels too, as a `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_rpe.data.class_names import VOC_CLASSES, class_numbers
from keras_rpe.data.crop_arguments import chosen_pairs
from keras_rpe.data.crop_options import crop_options
from keras_rpe.data.label_crops import LabelledImage, labelled_image
from keras_rpe.data.labelled_dataset import labelled_dataset
from keras_rpe.data.pascal_voc_files import PascalVocExample, find_pascal_voc, read_pascal_voc


def pascal_voc(
    path: str | Path,
    split: str = "train",
    *,
    sbd: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    crop_size: int | tuple[int, int] | None = 320,
    batch_size: int = 8,
    shuffle: bool = True,
    augment: bool | str | Callable[[dict[str, Any]], dict[str, Any]] = "photo",
    zoom: tuple[float, float] = (0.7, 1.5),
    repeats: int = 1,
    seed: int | None = None,
    names: Sequence[str] | None = None,
    split_pieces: bool = False,
) -> tf.data.Dataset:
    """Read PASCAL VOC 2012 as batches of images, instances and classes for `fit`.

    With `sbd`, images of the Semantic Boundaries Dataset that are not in VOC's val are added to
    VOC's train, which makes 10,582 of 1,464; where both label an image, VOC's labels are taken.

    The headers of VOC's files are checked before anything else; SBD's files are only looked for.
    Pixels that VOC outlines as void, and those beyond an image that is smaller than the crop, are
    `VOID` (-1) in both maps: train with `ignore_label=VOID`.

    Args:
        path: The folder `VOCdevkit` or the published tar archive of it, which is not unpacked.
        split: "train", "val" or "trainval": 1,464, 1,449 and 2,913 images.
        sbd: The folder of SBD that holds `img`, `inst` and `cls`, or `benchmark_RELEASE` above it;
            needs `split="train"`.
        class_names: The classes to keep, to be numbered from 1 in this order; objects of others
            become background. `None` keeps the 20 of `VOC_CLASSES`.
        crop_size: Side of the square crops, or (height, width), or `None` for whole images at
            their own sizes, which needs `batch_size=1`.
        batch_size: Crops per batch; the last batch of an epoch may be smaller.
        shuffle: New order and new crops in every epoch; False gives every epoch the same order
            and the same crops.
        augment: As in `label_folder`; "photo" mirrors and changes colors.
        zoom: Each crop is enlarged by a random factor from this range, if it is augmented.
        repeats: Crops per image and epoch.
        seed: The same seed gives the same batches; `None` draws one from Python's generator.
        names: Only these images, by their names without ending.
        split_pieces: Whether each connected piece of an object becomes an instance of its own.

    Returns:
        A dataset of float32 images (B, h, w, 3) in 0..255 and a dictionary of `instances` and
        `classes`, both int32 (B, h, w), of known length. 0 is the background; instances have ids
        from 1 without gaps.

    Raises:
        LabelFolderError: If folders, lists or files are missing or do not fit together.
        ImageFileError: If the archive is damaged.
        ValueError: If an argument is not as above.

    Source:
        Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV
        2015; Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> from keras_rpe.data import pascal_voc
        >>> labels = np.repeat([[0, 255, 1]], 16, axis=1).repeat(32, axis=0).astype("uint8")
        >>> labels = Image.fromarray(labels)
        >>> labels.putpalette([0, 0, 0, 128, 0, 0])  # mode P
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     root = Path(folder) / "VOC2012"
        ...     for part in ("JPEGImages", "SegmentationObject", "SegmentationClass"):
        ...         (root / part).mkdir(parents=True)
        ...         image = labels.convert("RGB") if part == "JPEGImages" else labels
        ...         image.save(root / part / ("1" + (".png" if image is labels else ".jpg")))
        ...     (root / "ImageSets/Segmentation").mkdir(parents=True)
        ...     _ = (root / "ImageSets/Segmentation/val.txt").write_text("1")
        ...     images, labels = next(iter(pascal_voc(folder, "val", crop_size=24, batch_size=1)))
        >>> images.shape, labels["instances"].shape, int(labels["classes"].numpy().max())
        (TensorShape([1, 24, 24, 3]), TensorShape([1, 24, 24]), 1)
    """
    options = crop_options(
        crop_size, batch_size, shuffle, augment, zoom, repeats, seed, split_pieces
    )
    class_numbers("PASCAL VOC", VOC_CLASSES, class_names)
    examples = chosen_pairs(find_pascal_voc(path, split, sbd), names)

    def load(example: PascalVocExample) -> LabelledImage:
        return labelled_image(*read_pascal_voc(example, class_names))

    return labelled_dataset(examples, load, options, classes=True)
