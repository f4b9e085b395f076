"""The instances of COCO as a `tf.data.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_rpe.data.class_names import class_numbers
from keras_rpe.data.coco_instances_file import (
    CocoInstancesExample,
    find_coco_instances,
    read_coco_instances,
)
from keras_rpe.data.crop_arguments import chosen_pairs
from keras_rpe.data.crop_options import crop_options
from keras_rpe.data.label_crops import LabelledImage, labelled_image
from keras_rpe.data.labelled_dataset import labelled_dataset


def coco_instances(
    annotations: str | Path,
    images: str | Path,
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
    """Read the instances of COCO, or of a data set of its form, as batches for `fit`.

    Objects are polygons, filled by COCO's own rule, or run lengths, compressed or not. Where some
    overlap, the one of fewer pixels wins, and of equally large ones the later in the file. Crowds
    are void where there is no object, as is what lies beyond an image that is smaller than the
    crop: `VOID` (-1) in both maps, for training with `ignore_label=VOID`.

    All annotations are checked before anything else; of images, that they exist. Polygons need
    pycocotools: `pip install "keras-rpe[coco]"`.

    Args:
        annotations: The JSON file, such as `instances_train2017.json`.
        images: The folder of its images, such as `train2017`.
        class_names: The classes to keep, to be numbered from 1 in this order; annotations of
            others are left out. `None`
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
        ImageFileError: If the file or an annotation cannot be used, or an image is missing.
        ValueError: If an argument is not as above.

    Source:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from keras_rpe.data import coco_instances, write_image
        >>> dog = {"size": [32, 40], "counts": [320, 640, 320]}  # columns 10 to 29
        >>> content = {
        ...     "images": [{"id": 4, "file_name": "a.png", "height": 32, "width": 40}],
        ...     "categories": [{"id": 18, "name": "dog"}],
        ...     "annotations": [{"id": 7, "image_id": 4, "category_id": 18, "segmentation": dog}],
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_image(folder + "/a.png", np.zeros((32, 40, 3), "uint8"))
        ...     path = Path(folder) / "instances.json"
        ...     _ = path.write_text(json.dumps(content))
        ...     images, labels = next(iter(coco_instances(path, folder, crop_size=24)))
        >>> images.shape, labels["instances"].shape, int(labels["classes"].numpy().max())
        (TensorShape([1, 24, 24, 3]), TensorShape([1, 24, 24]), 1)
    """
    options = crop_options(
        crop_size, batch_size, shuffle, augment, zoom, repeats, seed, split_pieces
    )
    found, known = find_coco_instances(annotations, images)
    class_numbers(annotations, known, class_names)
    examples = chosen_pairs(found, names)

    def load(example: CocoInstancesExample) -> LabelledImage:
        return labelled_image(*read_coco_instances(example, known, class_names))

    return labelled_dataset(examples, load, options, classes=True)
