"""The proposals for the objects of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Proposals:
    """Masks of what may be objects in one image, the likeliest first. They may overlap.

    Attributes:
        masks: Boolean `(n, H, W)`.
        scores: float32 `(n,)` in [0, 1], falling.
        boxes: int32 `(n, 4)`: first row, first column, last row + 1, last column + 1, in pixels.

    Source:
        Kong & Fowlkes (CVPR 2018), section 4: object proposals.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models import Proposals
        >>> masks = np.array([[[True, True], [False, False]]])
        >>> proposals = Proposals(masks, np.array([0.9], "float32"), np.array([[0, 0, 1, 2]]))
        >>> len(proposals), proposals.areas.tolist()
        (1, [2])
    """

    masks: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray

    @classmethod
    def from_tables(
        cls, tables: Mapping[str, np.ndarray], max_proposals: int | None = None
    ) -> Proposals:
        """Take one image from the tables of a batch of one, as graphs give them.

        Args:
            tables: The arrays of `ObjectProposer.group`.
            max_proposals: Proposals at most; default: all.

        Returns:
            The proposals.

        Raises:
            ValueError: If `max_proposals` is no positive integer.
        """
        check_max_proposals(max_proposals)
        n = int(tables["num_proposals"][0])
        n = n if max_proposals is None else min(n, max_proposals)
        maps = tables["label_maps"][0]
        masks = np.zeros((n, *maps.shape[:2]), bool)
        for k, (scale, number) in enumerate(zip(tables["scales"][0, :n], tables["ids"][0, :n])):
            masks[k] = maps[..., scale] == number
        return cls(masks, tables["scores"][0, :n], tables["boxes"][0, :n])

    def __len__(self) -> int:
        """Number of proposals."""
        return len(self.scores)

    @property
    def areas(self) -> np.ndarray:
        """Pixels of each proposal, int64 `(n,)`."""
        return self.masks.sum(axis=(1, 2), dtype="int64")


def check_max_proposals(max_proposals: int | None) -> None:
    """Check a number of proposals.

    Raises:
        ValueError: If it is neither `None` nor a positive integer.
    """
    if max_proposals is not None and (
        isinstance(max_proposals, bool)
        or not isinstance(max_proposals, int | np.integer)
        or max_proposals < 1
    ):
        raise ValueError(
            "`max_proposals` must be None or an integer of at least 1. "
            f"Received: max_proposals={max_proposals!r}"
        )
