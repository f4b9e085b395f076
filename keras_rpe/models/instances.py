"""The result of segmenting one image."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Instances:
    """Instances of one image.

    Attributes:
        labels: int32 `(H, W)`, 0 = background, instance k has the pixels equal to k.
        scores: float32 `(n,)`, the mean score of its class inside instance k at index k - 1, in
            [0, 1]; with one class that is the foreground score.
        boxes: int32 `(n, 4)`: first row, first column, last row + 1, last column + 1, in pixels.
        classes: int32 `(n,)`, class of the instance, from 1.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import Instances
        >>> labels = np.array([[0, 1], [1, 1]], "int32")
        >>> one = np.ones(1, "int32")
        >>> result = Instances(labels, np.array([0.9], "float32"), np.array([[0, 0, 2, 2]]), one)
        >>> len(result), result.areas.tolist()
        (1, [3])
    """

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray

    @classmethod
    def from_tables(cls, tables: Mapping[str, np.ndarray]) -> Instances:
        """Take one image from the tables of a batch of one, as graphs give them.

        Args:
            tables: The arrays of `InstanceDecoder`, whose tables have a fixed length.

        Returns:
            The instances, without the empty rows. A warning tells if the tables are full, since
            further instances were dropped then.
        """
        n = int(tables["num_instances"][0])
        if n >= tables["scores"].shape[1]:
            warnings.warn(
                f"The image has {n} or more instances, and those beyond `max_instances` of the "
                "decoder were dropped.",
                stacklevel=3,
            )
        rows = (tables[name][0, :n] for name in ("scores", "boxes", "classes"))
        return cls(tables["labels"][0], *rows)

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.scores)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each instance, int64 `(n,)`."""
        return np.bincount(self.labels.ravel(), minlength=len(self) + 1)[1:]
