"""Decode photographs and label images of data sets, in folders or archives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_rpe.data.image_file import MIN_SIDE
from keras_rpe.data.image_file_error import ImageFileError
from keras_rpe.data.image_header import MAX_PIXELS, PILLOW_FORMATS
from keras_rpe.data.stored_file import StoredFile


class StoredHeader(NamedTuple):
    """What an image file says of itself.

    Attributes:
        height: Rows of pixels.
        width: Columns of pixels.
        mode: Pillow's name of how pixels are stored, such as "P" for a palette.
        kind: "PNG" or "JPEG".
    """

    height: int
    width: int
    mode: str
    kind: str


def read_stored_header(file: StoredFile) -> StoredHeader:
    """Read the header of a PNG or JPEG file.

    Args:
        file: The file.

    Returns:
        What it says.

    Raises:
        ImageFileError: If it is missing, no PNG or JPEG, smaller than 8 pixels on a side, or
            claims more pixels than are read.
    """
    with file.open() as stream:
        try:
            with Image.open(stream, formats=PILLOW_FORMATS) as image:
                width, height = image.size
                header = StoredHeader(height, width, image.mode, image.format or "")
        except Image.DecompressionBombError:
            raise ImageFileError(f"{file} claims more pixels than Pillow reads safely.") from None
        except Image.UnidentifiedImageError:
            raise ImageFileError(f"{file} is not a PNG or JPEG image.") from None
        except Exception as error:
            raise _unreadable(file, error) from error
    if min(height, width) < MIN_SIDE:
        raise ImageFileError(f"{file} has {height} x {width} pixels, fewer than 8 on a side.")
    if height * width > MAX_PIXELS:
        raise ImageFileError(
            f"{file} claims {height} x {width} pixels, more than the {MAX_PIXELS} that are read."
        )
    return header


def read_photo(file: StoredFile) -> np.ndarray:
    """Read a photograph as uint8 (H, W, 3), gray thrice; `read_stored_header` has the errors."""
    read_stored_header(file)
    return _pixels(file, "RGB")


def read_palette_labels(file: StoredFile) -> np.ndarray:
    """Read the indices of a palette image, as PASCAL VOC stores labels.

    Args:
        file: A PNG file with a palette.

    Returns:
        uint8 (H, W).

    Raises:
        ImageFileError: As `read_stored_header`, or if it is no PNG with a palette.
    """
    check_palette(file, read_stored_header(file))
    return _pixels(file, "P")


def check_palette(file: StoredFile, header: StoredHeader) -> None:
    """Raise `ImageFileError` where a file is no PNG with a palette."""
    if header.kind != "PNG" or header.mode != "P":
        raise ImageFileError(
            f"{file} is a {header.kind} of the mode {header.mode}, not a PNG with a palette, whose "
            "indices are the labels."
        )


def read_color_ids(file: StoredFile) -> np.ndarray:
    """Read the ids R + 256 G + 65536 B of a PNG, as COCO stores panoptic segments.

    Args:
        file: A PNG file of 3 channels of 8 bits.

    Returns:
        int32 (H, W).

    Raises:
        ImageFileError: As `read_stored_header`, or if it is no such PNG.
    """
    header = read_stored_header(file)
    if header.kind != "PNG" or header.mode != "RGB":
        raise ImageFileError(
            f"{file} is a {header.kind} of the mode {header.mode}, not a PNG of three channels."
        )
    return _pixels(file, "RGB").astype(np.int32) @ np.array([1, 256, 65536], np.int32)


def _pixels(file: StoredFile, mode: str) -> np.ndarray:
    with file.open() as stream:
        try:
            with Image.open(stream, formats=PILLOW_FORMATS) as image:
                # The call decodes, and says so where the file is cut short.
                return np.array(image if image.mode == mode else image.convert(mode))
        except Exception as error:
            raise _unreadable(file, error) from error


def _unreadable(file: StoredFile, error: Exception) -> ImageFileError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ImageFileError(f"{file} cannot be read as an image: {reason[:200]}.")
