"""Read a pair of an image and its label images, with their void pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_rpe.data.image_file import read_image, read_labels
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.label_maps import VOID, agreed_maps
from keras_rpe.data.label_pairs import LabelPair


def read_label_pair(
    pair: LabelPair, void: int | None = None, num_classes: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read an image with its instances and, where the pair has such a file, its classes.

    Args:
        pair: What `find_label_pairs` found.
        void: The number of void pixels in the label files; `None`: there are none.
        num_classes: The highest class that the file may have; `None`: any.

    Returns:
        The image as `read_image` returns it; the instances, int32 (H, W), 0 for the background
        and `VOID` (-1) for void pixels; and the classes, int32 (H, W) likewise, or `None`. An
        object has one class: pixels where the two files disagree are void.

    Raises:
        ImageFileError: If a file is missing or cannot be used, sizes differ, a class is above
            `num_classes`, or an object has none.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from keras_rpe.data import LabelPair, read_label_pair, write_image, write_labels
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     image, instances = Path(folder) / "image.png", Path(folder) / "instances.png"
        ...     write_image(image, np.zeros((8, 8, 3), "uint8"))
        ...     write_labels(instances, np.diag([3, 3, 3, 3, 255, 255, 0, 0]))
        ...     read_label_pair(LabelPair(image, instances, "a"), void=255)[1].diagonal().tolist()
        [3, 3, 3, 3, -1, -1, 0, 0]
    """
    if pair.image is None or pair.instances is None:
        raise ImageFileError(f"{pair.name} has no image, or no labels.")
    image, instances = read_image(pair.image), read_labels(pair.instances)
    classes = None if pair.classes is None else read_labels(pair.classes)
    for file, labels in ((pair.instances, instances), (pair.classes, classes)):
        if labels is None:
            continue
        if labels.shape != image.shape[:2]:
            raise ImageFileError(f"{file} and its image no longer have one size.")
        if void is not None:
            labels[labels == void] = VOID
    if classes is None:
        return image, instances, None
    highest = int(classes.max())
    if num_classes is not None and highest > num_classes:
        raise ImageFileError(f"{pair.classes} has the class {highest}, above num_classes.")
    return image, *agreed_maps(pair.classes, instances, classes)


def check_label_numbers(void: Any, num_classes: Any, classes: Any) -> None:
    """Refuse a number of void pixels, or of classes, that no files have.

    Args:
        void: The number of void pixels, from 1, or `None`.
        num_classes: The highest class, from 1, or `None`.
        classes: The files of classes, without which there is no `num_classes`.

    Raises:
        ValueError: If one is not as above.
    """
    for argument, value in (("void", void), ("num_classes", num_classes)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 1 <= value < 2**31):
            raise ValueError(
                f"{argument} needs a whole number from 1 to 2**31 - 1, or None. "
                f"Received: {argument}={value!r}"
            )
    if num_classes is not None and classes is None:
        raise ValueError(
            f"num_classes needs classes. Received: num_classes={num_classes}, classes=None"
        )
