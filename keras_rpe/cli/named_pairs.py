"""The images of a folder that a list of names chooses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from keras_rpe.data import BoundaryPair, LabelPair

Pair = TypeVar("Pair", "LabelPair", "BoundaryPair")


def named_pairs(pairs: Sequence[Pair], names: Path | None, folder: Path) -> list[Pair]:
    """Choose the pairs whose names are in the file of `--names`.

    Args:
        pairs: Images with what people drew into them.
        names: A text file with a name, without ending, a line; None chooses all.
        folder: Where the pairs are from, for the message.

    Returns:
        The chosen pairs, in their order.

    Raises:
        ValueError: If the file is no text, is empty, or has a name of which there is no image.
        OSError: If it cannot be read.
    """
    from keras_rpe.data import LabelFolderError

    if names is None:
        return list(pairs)
    wanted = _read_names(names)
    missing = sorted(wanted - {pair.name for pair in pairs})
    if missing:
        raise LabelFolderError(
            f"--names {names} lists {len(missing)} names of which there is no image in "
            f"{folder}, such as {missing[0]!r}."
        )
    return [pair for pair in pairs if pair.name in wanted]


def _read_names(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--names needs a text file. Received: {path}") from error
    names = {line.strip() for line in lines if line.strip()}
    if not names:
        raise ValueError(f"--names needs a file with at least one name. Received: {path}")
    return names
