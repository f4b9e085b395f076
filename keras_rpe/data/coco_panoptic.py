"""The panoptic segments of COCO as a `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_rpe.data.class_names import class_numbers
from keras_rpe.data.coco_panoptic_file import (
    CocoPanopticExample,
    find_coco_panoptic,
    read_coco_panoptic,
)
from keras_rpe.data.crop_arguments import chosen_pairs
from keras_rpe.data.crop_options import crop_options
from keras_rpe.data.label_crops import LabelledImage, labelled_image
from keras_rpe.data.labelled_dataset import labelled_dataset


def coco_panoptic(
    annotations: str | Path,
    images: str | Path,
    segments: str | Path | None = None,
    *,
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
    """Read the panoptic segments of COCO, or of a data set of its form, as batches for `fit`.

    Things, such as dogs, are instances; stuff, such as sky, has its class, and 0 as its instance.
    Crowds, pixels without a segment, and what lies beyond an image that is smaller than the crop
    are `VOID` (-1) in both maps: train with `ignore_label=VOID`.

    All entries of the file are checked before anything else; of images and PNG files, that they
    exist.

    Args:
        annotations: The JSON file, such as `panoptic_train2017.json`.
        images: The folder of its images, such as `train2017`.
        segments: The folder of its PNG files, whose colors R + 256 G + 65536 B are the ids of
            segments; `None` is the JSON file's name without ending.
        class_names: The classes to keep, to be numbered from 1 in this order; segments of
            others become background. `None`
            keeps all, in the order of their ids.
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
        LabelFolderError: If there is no image of one of `names`.
        ImageFileError: If the file or an entry cannot be used, or an image or PNG is missing.
        ValueError: If an argument is not as above.

    Source:
        Kirillov et al., "Panoptic Segmentation", CVPR 2019.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from keras_rpe.data import coco_panoptic, write_image
        >>> sky = {"id": 5, "category_id": 2, "iscrowd": 0}
        >>> content = {
        ...     "images": [{"id": 4, "file_name": "a.png", "height": 32, "width": 40}],
        ...     "categories": [{"id": 2, "name": "sky", "isthing": 0}],
        ...     "annotations": [{"image_id": 4, "file_name": "a.png", "segments_info": [sky]}],
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "panoptic").mkdir()
        ...     write_image(folder + "/a.png", np.zeros((32, 40, 3), "uint8"))
        ...     write_image(folder + "/panoptic/a.png", np.full((32, 40, 3), [5, 0, 0], "uint8"))
        ...     path = Path(folder) / "panoptic.json"
        ...     _ = path.write_text(json.dumps(content))
        ...     images, labels = next(iter(coco_panoptic(path, folder, crop_size=24)))
        >>> labels["instances"].numpy().max(), labels["classes"].numpy().min()
        (np.int32(0), np.int32(1))
    """
    options = crop_options(
        crop_size, batch_size, shuffle, augment, zoom, repeats, seed, split_pieces
    )
    found, known = find_coco_panoptic(annotations, images, segments)
    class_numbers(annotations, known, class_names)
    examples = chosen_pairs(found, names)

    def load(example: CocoPanopticExample) -> LabelledImage:
        return labelled_image(*read_coco_panoptic(example, known, class_names))

    return labelled_dataset(examples, load, options, classes=True)
