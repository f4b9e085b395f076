"""What the tests of the commands share: how a command ended, and files that are no images."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from keras_rpe.data import write_image


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def assert_one_line_error(outcome: Outcome, *parts: str) -> None:
    """Check that a command ended in one line of error that says all of the parts."""
    assert outcome.code == 1
    lines = [line for line in outcome.err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _truncated(path: Path) -> None:
    write_image(path, np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype("uint8"))
    path.write_bytes(path.read_bytes()[:-900])


def _nan(path: Path) -> None:
    image = np.zeros((32, 32), "float32")
    image[3, 4] = np.nan
    tifffile.imwrite(path, image)


BAD_IMAGES: dict[str, Callable[[Path], object]] = {
    "text.png": lambda path: path.write_text("no image"),
    "empty.png": Path.touch,
    "truncated.png": _truncated,
    "pixel.png": lambda path: write_image(path, np.zeros((1, 1, 3), "uint8")),
    "stack.tif": lambda path: tifffile.imwrite(path, np.zeros((7, 32, 32), "uint8")),
    "nan.tif": _nan,
}


def bad_image(folder: Path, name: str) -> Path:
    """Write a file that has the name of an image and cannot be used as one."""
    BAD_IMAGES[name](folder / name)
    return folder / name
