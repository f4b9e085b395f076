"""Files that look like images by their names and are none that can be used."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from keras_rpe.data import write_image


def _text(folder: Path) -> Path:
    (folder / "bad.png").write_text("no image")
    return folder / "bad.png"


def _empty(folder: Path) -> Path:
    (folder / "bad.png").touch()
    return folder / "bad.png"


def _truncated(folder: Path) -> Path:
    path = folder / "bad.png"
    write_image(path, np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype("uint8"))
    path.write_bytes(path.read_bytes()[:-900])
    return path


def _pixel(folder: Path) -> Path:
    write_image(folder / "bad.png", np.zeros((1, 1, 3), "uint8"))
    return folder / "bad.png"


def _stack(folder: Path) -> Path:
    tifffile.imwrite(folder / "bad.tif", np.zeros((7, 32, 32), "uint8"))
    return folder / "bad.tif"


def _nan(folder: Path) -> Path:
    image = np.zeros((32, 32), "float32")
    image[3, 4] = np.nan
    tifffile.imwrite(folder / "bad.tif", image)
    return folder / "bad.tif"


BAD_IMAGES: dict[str, Callable[[Path], Path]] = {
    "text": _text,
    "empty": _empty,
    "truncated": _truncated,
    "pixel": _pixel,
    "stack": _stack,
    "nan": _nan,
}
