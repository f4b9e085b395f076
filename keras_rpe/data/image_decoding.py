"""Decode the pixels of PNG, JPEG and TIFF files."""

import contextlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from keras_rpe.data.image_header import (
    PILLOW_FORMATS,
    PNG_END,
    ImageHeader,
    png_is_deep_color,
    unreadable,
)

_PLAIN_MODES = {"L", "RGB", "RGBA", "I;16", "I;16L", "I;16B"}


def decode(path: Path, header: ImageHeader, labels: bool) -> np.ndarray:
    """Decode the pixels of a file whose header has been read.

    Args:
        path: the file.
        header: what `read_header` returned.
        labels: keep the indices of a palette image instead of its colours.

    Returns:
        (H, W) or (H, W, C) in the stored type; bool for images of one bit.

    Raises:
        ImageFileError: the file is cut short or broken.

    Example:
    >>> from pathlib import Path
    >>> from keras_rpe.data.image_decoding import decode
    >>> import tempfile
    >>> from keras_rpe.data.image_header import read_header
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "cell.png"
    ...     Image.new("L", (9, 8), 3).save(file)
    ...     decode(file, read_header(file), labels=True).max()
    np.uint8(3)
    """
    try:
        if header.kind == "png" and not header.whole and PNG_END not in path.read_bytes():
            raise ValueError("the file is cut short")
        if header.kind == "tiff":
            return _decode_tiff(path, header)
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            image.load()
            if not labels and header.kind == "png" and png_is_deep_color(path):
                return _decode_deep_png(path)
            return _pillow_array(image, labels)
    except Exception as error:
        raise unreadable(path, error) from error


def _pillow_array(image: Image.Image, labels: bool) -> np.ndarray:
    if image.mode == "1" or (labels and image.mode == "P"):
        return np.asarray(image)
    if image.mode == "I":
        return np.asarray(image).astype(np.uint16)
    if image.mode not in _PLAIN_MODES:
        image = image.convert("RGBA" if image.mode in ("LA", "La", "RGBa") else "RGB")
    return np.asarray(image)


def _decode_deep_png(path: Path) -> np.ndarray:
    # Imported here alone: files of this kind are rare and TensorFlow takes seconds to import.
    import tensorflow as tf

    data = path.read_bytes()
    pixels = tf.io.decode_png(data, dtype=tf.uint16).numpy()
    return pixels if pixels.shape[-1] > 2 else tf.io.decode_png(data, 4, tf.uint16).numpy()


def _decode_tiff(path: Path, header: ImageHeader) -> np.ndarray:
    try:
        with tifffile.TiffFile(path) as file:
            pixels = file.series[0].asarray()
    except ValueError as error:
        # Compressions such as LZW need a package of codecs that Pillow brings along.
        if "imagecodecs" not in str(error):
            raise
        with contextlib.suppress(Exception), Image.open(path, formats=("TIFF",)) as image:
            pixels = np.asarray(image)
            if pixels.dtype == header.dtype:
                return pixels
        raise error
    plain = (header.height, header.width)
    if header.channels == 1:
        return pixels.reshape(plain)
    pixels = np.squeeze(pixels)
    return pixels if pixels.shape[:2] == plain else np.moveaxis(pixels, 0, -1)
