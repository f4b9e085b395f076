"""What an image file says of itself, read without decoding its pixels."""

import logging
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from keras_rpe.data.image_file_error import ImageFileError

MAX_PIXELS = 2**28
"""The largest number of pixels that a file may claim."""

PILLOW_FORMATS = ("PNG", "JPEG")

_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
# Cameras append padding or thumbnails after the end mark; further back a full decode decides.
_TAIL_BYTES = 65536

# What it says of broken files becomes an error here; without a handler it would print it too.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class ImageHeader(NamedTuple):
    """The size and the kind of an image file.

    Attributes:
        kind: "png", "jpeg" or "tiff".
        height: rows of pixels.
        width: columns of pixels.
        channels: values per pixel once read; a palette image counts as one.
        dtype: the NumPy type of the stored values.
        whole: whether the end of the file looks as it should; where it is not, only decoding
            tells whether the file is cut short.
    """

    kind: str
    height: int
    width: int
    channels: int
    dtype: np.dtype
    whole: bool


def read_header(path: str | Path) -> ImageHeader:
    """Read the header of a PNG, JPEG or TIFF file.

    Args:
        path: the file.

    Returns:
        An `ImageHeader`.

    Raises:
        ImageFileError: the file is missing, empty, a folder, no image, a stack of several
            images, or claims more pixels than `MAX_PIXELS`.

    Example:
    >>> from keras_rpe.data.image_header import read_header
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (30, 20)).save(folder + "/cell.png")
    ...     header = read_header(folder + "/cell.png")
    >>> header.kind, header.height, header.width, header.channels, header.whole
    ('png', 20, 30, 3, True)
    """
    path = Path(path)
    kind = file_kind(path)
    try:
        header = _tiff_header(path) if kind == "tiff" else _pillow_header(path, kind)
    except ImageFileError:
        raise
    except Image.DecompressionBombError:
        raise ImageFileError(
            f"{path} claims more pixels than Pillow reads safely, at most "
            f"{2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS)}."
        ) from None
    except Exception as error:
        raise unreadable(path, error) from error
    if header.height * header.width > MAX_PIXELS:
        raise ImageFileError(
            f"{path} claims {header.height} x {header.width} pixels, more than the "
            f"{MAX_PIXELS} that are read."
        )
    return header


def file_kind(path: Path) -> str:
    """Tell PNG, JPEG and TIFF apart by their first bytes; anything else is an error."""
    try:
        if path.is_dir():
            raise ImageFileError(f"{path} is a folder, not an image file.")
        if path.stat().st_size == 0:
            raise ImageFileError(f"{path} is empty (0 bytes).")
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise ImageFileError(f"{path} does not exist.") from None
    except OSError as error:
        raise unreadable(path, error) from error
    if start == _PNG_SIGNATURE:
        return "png"
    if start[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if start[:4] in _TIFF_SIGNATURES:
        return "tiff"
    raise ImageFileError(f"{path} is not a PNG, JPEG or TIFF image.")


def unreadable(path: Path, error: BaseException) -> ImageFileError:
    """One sentence for whatever a decoder said about a file."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ImageFileError(f"{path} cannot be read as an image: {reason[:200]}.")


def png_is_deep_color(path: Path) -> bool:
    """Whether a PNG has several channels of 16 bits, which Pillow would cut to 8."""
    with path.open("rb") as file:
        start = file.read(26)
    bits, color = struct.unpack("BB", start[24:26])
    return bits == 16 and color in (2, 4, 6)


def _pillow_header(path: Path, kind: str) -> ImageHeader:
    with Image.open(path, formats=PILLOW_FORMATS) as image:
        width, height = image.size
        # A photograph of two views (MPO) is read as its first; an animation is a stack.
        frames = getattr(image, "n_frames", 1)
        if kind == "png" and frames > 1:
            raise ImageFileError(f"{path} holds {frames} images, not one.")
        channels = len(image.getbands())
        deep = image.mode.startswith("I") or (kind == "png" and png_is_deep_color(path))
    dtype = np.dtype(np.uint16 if deep else np.uint8)
    return ImageHeader(kind, height, width, channels, dtype, _has_end(path, kind))


def _has_end(path: Path, kind: str) -> bool:
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, _TAIL_BYTES), 2)
        tail = file.read()
    if kind == "png":
        return tail.endswith(PNG_END)
    return tail.rstrip(b"\0").endswith(_JPEG_END)


def _tiff_header(path: Path) -> ImageHeader:
    with tifffile.TiffFile(path) as file:
        pages = len(file.pages)
        if pages == 0:
            raise ImageFileError(f"{path} holds no image.")
        if _lacks_tags(file):
            raise ImageFileError(f"{path} is cut short or broken: its TIFF tags are not whole.")
        series = file.series[0]
        shape = tuple(size for size in series.shape if size != 1)
        axes = "".join(a for a, size in zip(series.axes, series.shape) if size != 1)
        channel_axis = _channel_axis(axes)
        if pages > 1 and not (channel_axis == 0 and pages == shape[0]):
            raise ImageFileError(f"{path} holds {pages} images, not one.")
        if len(shape) == 3 and channel_axis is None:
            raise ImageFileError(f"{path} is a stack of shape {shape}, not one image.")
        sizes = [size for i, size in enumerate(shape) if i != channel_axis]
        if len(sizes) != 2:
            # A side of one pixel is squeezed too: take the sizes that the page states.
            page = file.pages.first
            sizes = [int(page.imagelength), int(page.imagewidth)]
            if len(shape) > 2:
                raise ImageFileError(f"{path} has shape {series.shape}, not that of one image.")
        channels = 1 if channel_axis is None else shape[channel_axis]
        end = max(
            (
                offset + count
                for page in file.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts)
            ),
            default=0,
        )
        whole = end <= path.stat().st_size
        return ImageHeader("tiff", sizes[0], sizes[1], channels, np.dtype(series.dtype), whole)


def _lacks_tags(file: tifffile.TiffFile) -> bool:
    """Whether tags point past the end: their pixels would decode, with the wrong bits."""
    page = file.pages.first
    file.filehandle.seek(page.offset)
    stated = struct.unpack(file.tiff.tagnoformat, file.filehandle.read(file.tiff.tagnosize))[0]
    return len(list(page.tags)) < stated


def _channel_axis(axes: str) -> int | None:
    """The channel axis of a TIFF series (S: samples, C: channels), or None."""
    if len(axes) == 3:
        for position in (0, 2):
            if axes[position] in "SC":
                return position
    return None
