"""Image and label image files."""

from __future__ import annotations

import contextlib
import glob
import io
import logging
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from keras_rpe.written_file import write_file


class ImageFileError(ValueError):
    """An image or label file that is missing, broken or of a kind that is not accepted.

    The message is one sentence that names the file.

    Example:
    >>> from keras_rpe.data import ImageFileError
    >>> str(ImageFileError("cell.png is empty (0 bytes)."))
    'cell.png is empty (0 bytes).'
    """


class LabelFolderError(ValueError):
    """A folder whose images and label images do not fit together, with every reason found.

    Example:
    >>> from keras_rpe.data import LabelFolderError
    >>> str(LabelFolderError("1 of 2 image pairs cannot be used: a.png: its mask is missing."))
    '1 of 2 image pairs cannot be used: a.png: its mask is missing.'
    """


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
    >>> from keras_rpe.data.images import read_header
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
    >>> from keras_rpe.data.images import decode
    >>> import tempfile
    >>> from keras_rpe.data.images import read_header
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


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""The file endings, in lower case, that count as images in a folder or a glob."""

MIN_SIDE = 8
"""The smallest height and width of an image, in pixels."""

_MAX_ID = 2**31 - 1


def read_image(path: str | Path) -> np.ndarray:
    """Read one image with the values that the file stores.

    Palette images become RGB, images of one bit 0 and 255, gray with alpha RGBA, and CMYK or
    YCbCr RGB. 16-bit PNGs keep their 16 bits. An EXIF orientation is left alone, so that the
    image stays on top of its labels. TIFF values that are neither 8 nor 16 bits without sign
    become float32.

    Args:
        path: a PNG, JPEG or TIFF file; its first bytes count, not its ending.

    Returns:
        An array of shape (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16 or float32.

    Raises:
        ImageFileError: the file is missing, empty, a folder, cut short, no image, a stack of
            several images, smaller than 8 pixels on a side, larger than 2**28 pixels (PNG and
            JPEG: than Pillow's own limit, if that is lower), or holds NaN or infinite pixels.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data import read_image, write_image
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(folder + "/cell.png", np.full((10, 12, 3), 7, "uint8"))
    ...     image = read_image(folder + "/cell.png")
    >>> image.shape, image.dtype.name, int(image.max())
    ((10, 12, 3), 'uint8', 7)
    """
    path = Path(path)
    header = read_header(path)
    if min(header.height, header.width) < MIN_SIDE:
        raise ImageFileError(
            f"{path} has {header.height} x {header.width} pixels, fewer than {MIN_SIDE} on a side."
        )
    if header.channels not in (1, 3, 4) and not (header.kind == "png" and header.channels == 2):
        raise ImageFileError(f"{path} has {header.channels} channels, not 1, 3 or 4.")
    image = decode(path, header, labels=False)
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    if image.dtype not in (np.uint8, np.uint16):
        if image.dtype.kind not in "iuf":
            raise ImageFileError(f"{path} holds values of type {image.dtype}, not real numbers.")
        with np.errstate(over="ignore"):
            image = image.astype(np.float32)
        if not np.isfinite(image).all():
            raise ImageFileError(f"{path} holds NaN or infinite pixels.")
    return np.ascontiguousarray(image)


def read_labels(path: str | Path) -> np.ndarray:
    """Read one label image: 0 is background, every other number the id of an instance.

    Args:
        path: a PNG of 8 or 16 bits (a palette PNG gives its indices) or a TIFF of integers.

    Returns:
        An int32 array of shape (H, W).

    Raises:
        ImageFileError: the file cannot be read (see `read_image`), is a JPEG, has several
            channels or a type with fractions, or an id is negative or above 2**31 - 1.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data import read_labels, write_labels
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(folder + "/cell.tif", np.diag([7, 0, 60000]))
    ...     read_labels(folder + "/cell.tif").tolist()
    [[7, 0, 0], [0, 0, 0], [0, 0, 60000]]
    """
    path = Path(path)
    header = read_header(path)
    check_label_header(path, header)
    labels = decode(path, header, labels=True)
    if labels.dtype == bool:
        return labels.astype(np.int32)
    if labels.size and int(labels.min()) < 0:
        raise ImageFileError(
            f"{path} holds negative ids, the lowest is {labels.min()}; 0 is background."
        )
    if labels.size and int(labels.max()) > _MAX_ID:
        raise ImageFileError(f"{path} holds ids above 2**31 - 1, the highest is {labels.max()}.")
    return np.ascontiguousarray(labels, dtype=np.int32)


def check_label_header(path: Path, header: ImageHeader) -> None:
    """Raise `ImageFileError` where the header alone shows that a file holds no labels."""
    if header.kind == "jpeg":
        raise ImageFileError(f"{path} is a JPEG, which changes ids: store labels as PNG or TIFF.")
    if header.channels != 1:
        raise ImageFileError(f"{path} has {header.channels} channels, but labels have one.")
    if header.dtype.kind not in "iub":
        raise ImageFileError(f"{path} holds values of type {header.dtype}, not whole-number ids.")


def write_labels(path: str | Path, labels: np.ndarray) -> None:
    """Write a label image, whole or not at all.

    Args:
        path: the file to write: `.png` gives a PNG of 16 bits, `.tif` or `.tiff` a zlib
            compressed TIFF of 16 bits, or of 32 where an id needs them.
        labels: integers of shape (H, W), none negative.

    Raises:
        ImageFileError: the labels or the ending are not as above, or an id above 65535 is to
            go into a PNG.
        OSError: the file cannot be written; nothing is left behind.

    Example:
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from keras_rpe.data import write_labels
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(folder + "/cell.png", np.eye(2, dtype=int))
    ...     [file.name for file in Path(folder).iterdir()]
    ['cell.png']
    """
    path = Path(path)
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "iub":
        raise ImageFileError(
            f"{path} needs labels that are integers of shape (H, W). "
            f"Received: labels of shape {labels.shape} and type {labels.dtype}"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > _MAX_ID:
        raise ImageFileError(
            f"{path} needs ids from 0 to 2**31 - 1. Received: ids from {lowest} to {highest}"
        )
    buffer = io.BytesIO()
    suffix = path.suffix.lower()
    if suffix == ".png":
        if highest > 65535:
            raise ImageFileError(
                f"{path} cannot hold the id {highest}, a PNG ends at 65535: write "
                f"{path.with_suffix('.tif').name} instead."
            )
        Image.fromarray(labels.astype(np.uint16)).save(buffer, format="PNG")
    elif suffix in (".tif", ".tiff"):
        stored = labels.astype(np.uint16 if highest <= 65535 else np.uint32)
        tifffile.imwrite(buffer, stored, compression="zlib", photometric="minisblack")
    else:
        raise ImageFileError(f"{path} needs the ending .png, .tif or .tiff for labels.")
    write_file(path, buffer.getvalue())


def write_image(path: str | Path, rgb: np.ndarray) -> None:
    """Write an RGB image as PNG, whole or not at all.

    Args:
        path: the file to write, with the ending `.png`.
        rgb: uint8 values of shape (H, W, 3).

    Raises:
        ImageFileError: the image or the ending is not as above.
        OSError: the file cannot be written; nothing is left behind.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data import write_image
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(folder + "/black.png", np.zeros((8, 8, 3), "uint8"))
    """
    path = Path(path)
    rgb = np.asarray(rgb)
    if path.suffix.lower() != ".png":
        raise ImageFileError(f"{path} needs the ending .png for an image.")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0 or rgb.dtype != np.uint8:
        raise ImageFileError(
            f"{path} needs an image of uint8 values of shape (H, W, 3). "
            f"Received: shape {rgb.shape} and type {rgb.dtype}"
        )
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG")
    write_file(path, buffer.getvalue())


def find_images(path: str | Path) -> list[Path]:
    """List the image files that a path stands for.

    Args:
        path: a file (taken whatever its ending), a folder (its own image files, not those of
            folders inside) or a glob such as `scans/*.png`.

    Returns:
        The files, sorted by path; hidden files are left out of folders and globs.

    Raises:
        ImageFileError: there is none.

    Example:
    >>> import numpy as np
    >>> from keras_rpe.data import find_images, write_image
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(folder + "/b.png", np.zeros((8, 8, 3), "uint8"))
    ...     write_image(folder + "/a.png", np.zeros((8, 8, 3), "uint8"))
    ...     [file.name for file in find_images(folder)]
    ['a.png', 'b.png']
    """
    text, path = str(path), Path(path)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(path.iterdir())
        problem = f"{path} holds no image files ({', '.join(IMAGE_SUFFIXES)})."
    elif glob.has_magic(text):
        found = [Path(name) for name in glob.glob(text, recursive=True)]  # noqa: PTH207
        problem = f"{path} matches no image files ({', '.join(IMAGE_SUFFIXES)})."
    else:
        raise ImageFileError(f"{path} does not exist.")
    images = sorted(
        file
        for file in found
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not file.name.startswith(".")
        and file.is_file()
    )
    if not images:
        raise ImageFileError(problem)
    return images
