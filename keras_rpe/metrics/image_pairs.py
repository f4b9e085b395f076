"""Offline figures: an accumulator over lists of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

_MISSING: Any = object()


def update_all(
    update: Callable[[Any, Any], None], truths: Iterable[Any], predictions: Iterable[Any]
) -> None:
    """Call `update(true, pred)` for each image.

    Args:
        update: takes one image.
        truths: what is true, one entry an image; a generator serves too.
        predictions: as many predictions, in the same order.

    Raises:
        ValueError: if the numbers differ, or `update` refuses an image (the message then starts
            with the image's number, from 0).
    """
    for number, (true, pred) in enumerate(zip_longest(truths, predictions, fillvalue=_MISSING)):
        if true is _MISSING or pred is _MISSING:
            shorter = "truths" if true is _MISSING else "predictions"
            raise ValueError(
                "`truths` and `predictions` must hold equally many images. "
                f"Received: only {number} in `{shorter}`"
            )
        try:
            update(true, pred)
        except ValueError as error:
            raise ValueError(f"Image {number}: {error}") from None
