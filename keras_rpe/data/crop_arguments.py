"""What the data sets of crops check of their arguments, each before a file is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from keras_rpe.data.label_folder_error import LabelFolderError

SEEDS = 2**31 - 16
"""Seeds lie below it; Keras' layers take a few above the one given."""


class Named(Protocol):
    """A pair of files of one name."""

    @property
    def name(self) -> str:
        """The name, without ending."""


Pair = TypeVar("Pair", bound=Named)


def check_crop_arguments(batch_size: Any, repeats: Any, zoom: Any, seed: Any) -> None:
    """Refuse what no data set of crops can work with.

    Args:
        batch_size: Crops per batch, a whole number from 1.
        repeats: Crops per image and epoch, a whole number from 1.
        zoom: Range of factors, two in order, from 0.1 to 10.
        seed: A whole number from 0 and below `SEEDS`, or `None`.

    Raises:
        ValueError: If one is not as above.
    """
    check_count("batch_size", batch_size)
    check_count("repeats", repeats)
    paired = isinstance(zoom, (tuple, list)) and len(zoom) == 2
    if not (paired and 0.1 <= zoom[0] <= zoom[1] <= 10):
        raise ValueError(
            f"zoom needs two factors in order, from 0.1 to 10. Received: zoom={zoom!r}"
        )
    check_seed(seed)


def check_count(argument: str, value: Any) -> None:
    """Refuse what is no whole number from 1.

    Args:
        argument: Its name.
        value: Its value.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{argument} needs a whole number from 1. Received: {argument}={value!r}")


def check_seed(seed: Any) -> None:
    """Refuse what is no seed of a data set.

    Args:
        seed: A whole number from 0 and below `SEEDS`, or `None`.

    Raises:
        ValueError: If it is not.
    """
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < SEEDS):
        raise ValueError(f"seed needs a whole number from 0 to {SEEDS - 1}. Received: seed={seed}")


def chosen_pairs(pairs: list[Pair], names: Sequence[str] | None) -> list[Pair]:
    """Keep the pairs of some names.

    Args:
        pairs: Pairs of files.
        names: Names without ending, at least one; `None`: all.

    Returns:
        Those pairs, in their order.

    Raises:
        ValueError: If `names` is no list of at least one name.
        LabelFolderError: If there is no pair of a name.
    """
    if names is None:
        return pairs
    if isinstance(names, str) or not names:
        raise ValueError(f"names needs a list of at least one name. Received: names={names!r}")
    wanted = set(names)
    missing = sorted(wanted - {pair.name for pair in pairs})
    if missing:
        raise LabelFolderError(
            f"names has {len(missing)} of which there is no image, such as {missing[0]!r}."
        )
    return [pair for pair in pairs if pair.name in wanted]
