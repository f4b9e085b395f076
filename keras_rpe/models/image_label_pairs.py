"""Images and their label maps, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np

from keras_rpe.models.image_array import rgb_array


def image_label_pairs(
    images: Iterable[Any], labels: Iterable[Any]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give images and their label maps that were checked, while they are taken.

    Args:
        images: Images as `predict_instances` takes them.
        labels: The integer map `(H, W)` of each.

    Yields:
        float32 `(H, W, 3)` and the map `(H, W)`.

    Raises:
        ValueError: If there are no images, not as many label maps, or one does not fit its image.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.image_label_pairs import image_label_pairs
        >>> for image, truth in image_label_pairs([np.zeros((8, 9))], [np.eye(8, 9, dtype=int)]):
        ...     image.shape, truth.shape
        ((8, 9, 3), (8, 9))
    """
    count = 0
    for image, label in zip_longest(images, labels):
        if image is None or label is None:
            raise ValueError(
                "`images` and `labels` must be equally many. "
                f"Received: no {'image' if image is None else 'label map'} {count}"
            )
        array, truth = rgb_array(image), np.asarray(label)
        if truth.dtype.kind not in "bui":
            raise ValueError(f"`labels` must hold integers. Received: dtype={truth.dtype}")
        if array.shape[:2] != truth.shape:
            raise ValueError(
                "`labels` must be maps (H, W) of the sizes of the images. "
                f"Received: a map of shape {truth.shape} for an image of shape {array.shape}"
            )
        yield array, truth
        count += 1
    if not count:
        raise ValueError("`images` must hold at least one image. Received: none")
