"""Image and label image files."""

from __future__ import annotations

import contextlib
import glob
import io
import logging
import struct
from collections.abc import Iterable, Iterator
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


def raise_problems(problems: Iterable[str | None], of_what: str) -> None:
    """Raise one `LabelFolderError` that names the first problems, where there is any."""
    problems = list(problems)
    reasons = [reason for reason in problems if reason]
    if reasons:
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        raise LabelFolderError(
            f"{len(reasons)} of {len(problems)} {of_what} cannot be used: "
            f"{'; '.join(reasons[:_SHOWN])}{more}."
        )


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""The file endings, in lower case, that count as images in a folder or a glob."""

MIN_SIDE = 8
"""The smallest height and width of an image, in pixels."""

MAX_PIXELS = 2**28
"""The largest number of pixels that a file may claim."""

PILLOW_FORMATS = ("PNG", "JPEG")

_SHOWN = 20
_MAX_ID = 2**31 - 1
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
# Cameras append padding or thumbnails after the end mark; further back a full decode decides.
_TAIL_BYTES = 65536

# What it says of broken files becomes an error here; without a handler it would print it too.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class ImageHeader(NamedTuple):
    """The size and the kind of an image file."""

    kind: str  # "PNG", "JPEG", "MPO" (a JPEG of several views) or "TIFF"
    height: int
    width: int
    channels: int  # a palette image counts as one
    dtype: np.dtype  # of the stored values
    whole: bool  # whether the end looks as it should; if not, only decoding tells


def read_header(path: Path) -> ImageHeader:
    """Read the header of a PNG, JPEG or TIFF file, or raise `ImageFileError`."""
    with _one_sentence(path):
        if path.is_dir():
            raise ImageFileError(f"{path} is a folder, not an image file.")
        with path.open("rb") as file:
            start = file.read(8)
        if not start:
            raise ImageFileError(f"{path} is empty (0 bytes).")
        is_tiff = start[:4] in _TIFF_SIGNATURES
        header = _tiff_header(path) if is_tiff else _pillow_header(path)
    if header.height * header.width > MAX_PIXELS:
        raise ImageFileError(
            f"{path} claims {header.height} x {header.width} pixels, more than the "
            f"{MAX_PIXELS} that are read."
        )
    return header


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Make an `ImageFileError` of whatever a decoder says about a file."""
    try:
        yield
    except ImageFileError:
        raise
    except FileNotFoundError:
        raise ImageFileError(f"{path} does not exist.") from None
    except Image.UnidentifiedImageError:
        raise ImageFileError(
            f"{path} cannot be read: it is not a PNG, JPEG or TIFF image."
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ImageFileError(f"{path} cannot be read as an image: {reason[:200]}.") from error


def _pillow_header(path: Path) -> ImageHeader:
    with Image.open(path, formats=PILLOW_FORMATS) as image:
        width, height = image.size
        kind = str(image.format)
        # A photograph of two views (MPO) is read as its first; an animation is a stack.
        frames = getattr(image, "n_frames", 1)
        if kind == "PNG" and frames > 1:
            raise ImageFileError(f"{path} holds {frames} images, not one.")
        channels = len(image.getbands())
        # How the decoder reads pixels, such as "RGB;16B", which it would cut to 8 bits.
        deep = kind == "PNG" and ";16" in str(image.tile[0][3])
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, _TAIL_BYTES), 2)
        end = file.read()
    whole = end.endswith(_PNG_END) if kind == "PNG" else end.rstrip(b"\0").endswith(_JPEG_END)
    return ImageHeader(
        kind, height, width, channels, np.dtype(np.uint16 if deep else np.uint8), whole
    )


def _tiff_header(path: Path) -> ImageHeader:
    with tifffile.TiffFile(path) as file:
        if not len(file.pages):
            raise ImageFileError(f"{path} holds no image.")
        page = file.pages.first
        file.filehandle.seek(page.offset)
        (tags,) = struct.unpack(file.tiff.tagnoformat, file.filehandle.read(file.tiff.tagnosize))
        if len(list(page.tags)) < tags:  # the others point past the end, and are left out
            raise ImageFileError(f"{path} is cut short or broken: its TIFF tags are not whole.")
        series = file.series[0]
        sizes = {axis: n for axis, n in zip(series.axes, series.shape) if n != 1 or axis in "YX"}
        height, width = (sizes.pop(axis, 1) for axis in "YX")
        channels = sizes.pop("S", None) or sizes.pop("C", 1)  # samples of a pixel, or channels
        if sizes or len(file.pages) not in (1, channels):
            raise ImageFileError(
                f"{path} is a stack of shape {series.shape} that holds {len(file.pages)} images, "
                "not one image."
            )
        end = max(
            offset + count
            for page in file.pages
            for offset, count in zip((0, *page.dataoffsets), (0, *page.databytecounts))
        )
        whole = end <= path.stat().st_size
        return ImageHeader("TIFF", height, width, channels, np.dtype(series.dtype), whole)


def _decode(path: Path, header: ImageHeader, labels: bool) -> np.ndarray:
    """Decode (H, W) or (H, W, C) in the stored type; labels are the indices of a palette."""
    with _one_sentence(path):
        if header.kind == "PNG" and not header.whole and _PNG_END not in path.read_bytes():
            raise ImageFileError(f"{path} cannot be read as an image: it is cut short.")
        if header.kind == "TIFF":
            return _decode_tiff(path, header)
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            image.load()
            if header.dtype == np.uint16:
                deep = header.channels > 1
                return _decode_deep_png(path) if deep else np.asarray(image).astype(np.uint16)
            if image.mode not in ("1", "L", "RGB", "RGBA") and not (labels and image.mode == "P"):
                alpha = image.mode in ("LA", "La", "RGBa")
                return np.asarray(image.convert("RGBA" if alpha else "RGB"))
            return np.asarray(image)


def _decode_deep_png(path: Path) -> np.ndarray:
    # Imported only here: files of this kind are rare, and not everyone has TensorFlow.
    try:
        import tensorflow as tf
    except ModuleNotFoundError:
        raise ImageFileError(
            f"{path} is a color PNG of 16 bits, which needs TensorFlow: save it as TIFF."
        ) from None

    data = path.read_bytes()
    pixels = tf.io.decode_png(data, dtype=tf.uint16).numpy()
    return pixels if pixels.shape[-1] > 2 else tf.io.decode_png(data, 4, tf.uint16).numpy()


def _decode_tiff(path: Path, header: ImageHeader) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        try:
            pixels = series.asarray()
        except ValueError as error:
            # Compressions such as LZW need a package of codecs, which Pillow brings along.
            if "imagecodecs" not in str(error):
                raise
            with Image.open(path, formats=("TIFF",)) as image:
                pixels = np.asarray(image)
            if pixels.dtype != header.dtype:
                raise
        if header.channels == 1:
            return pixels.reshape(header.height, header.width)
        pixels = np.squeeze(pixels)
        first = pixels.shape != (header.height, header.width, header.channels)
        return np.moveaxis(pixels, 0, -1) if first else pixels


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
    if header.channels not in (1, 3, 4) and (header.kind, header.channels) != ("PNG", 2):
        raise ImageFileError(f"{path} has {header.channels} channels, not 1, 3 or 4.")
    image = _decode(path, header, labels=False)
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
    labels = _decode(path, header, labels=True)
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
    """Raise `ImageFileError` where the header already shows that a file holds no labels."""
    if header.kind in ("JPEG", "MPO"):
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
