"""How crops of labelled images are cut, augmented and batched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from keras_rpe.data.crop_arguments import check_crop_arguments

Change = Callable[[dict[str, Any]], dict[str, Any]]


class CropOptions(NamedTuple):
    """Checked arguments of a data set of crops; `crop_options` makes it.

    Attributes:
        size: Height and width of the crops; `None` for whole images.
        batch_size: Crops a batch.
        shuffle: Whether every epoch has another order and other crops.
        augment: True, False, "photo", or a function on a dictionary.
        zoom: Range of the factors by which crops are enlarged.
        repeats: Crops per image and epoch.
        seed: Seed; `None`: to be drawn.
        split_pieces: Whether each connected piece of an instance becomes one of its own.
    """

    size: tuple[int, int] | None
    batch_size: int
    shuffle: bool
    augment: bool | str | Change
    zoom: tuple[float, float]
    repeats: int
    seed: int | None
    split_pieces: bool

    @property
    def margin(self) -> tuple[int, int]:
        """Rows above and below, and columns left and right, that crops have at first."""
        if self.augment in (False, "photo") or self.size is None:
            return 0, 0
        # A crop turned by any angle reaches as far as its diagonal.
        reach = math.hypot(*self.size) / 2
        return math.ceil(reach - self.size[0] / 2), math.ceil(reach - self.size[1] / 2)


def crop_options(
    crop_size: Any,
    batch_size: Any,
    shuffle: bool,
    augment: Any,
    zoom: Any,
    repeats: Any,
    seed: Any,
    split_pieces: Any,
) -> CropOptions:
    """Check the arguments of a data set of crops, as `label_folder` tells them.

    Raises:
        ValueError: If one is not as told there.
    """
    size = _checked_size(crop_size, batch_size)
    check_crop_arguments(batch_size, repeats, zoom, seed)
    if not (isinstance(augment, bool) or augment == "photo" or callable(augment)):
        raise ValueError(
            'augment needs True, False, "photo", or a layer or function on a dictionary of images '
            f"and segmentation_masks. Received: augment={augment!r}"
        )
    if not isinstance(split_pieces, bool):
        raise ValueError(
            f"split_pieces needs True or False. Received: split_pieces={split_pieces!r}"
        )
    if callable(augment) or augment is False or size is None:
        zoom = (1.0, 1.0)
    return CropOptions(size, batch_size, shuffle, augment, tuple(zoom), repeats, seed, split_pieces)


def _checked_size(crop_size: Any, batch_size: int) -> tuple[int, int] | None:
    if crop_size is None:
        if batch_size != 1:
            raise ValueError(
                "batch_size needs to be 1 with crop_size=None, because whole images differ in "
                f"size. Received: batch_size={batch_size}"
            )
        return None
    size = tuple(crop_size) if isinstance(crop_size, (tuple, list)) else (crop_size, crop_size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in size)
    if len(size) != 2 or not whole or min(size) < 1:
        raise ValueError(
            "crop_size needs a whole number from 1, a pair (height, width) of them, or None. "
            f"Received: crop_size={crop_size!r}"
        )
    return size[0], size[1]
