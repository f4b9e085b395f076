"""Image and label image files."""

from __future__ import annotations

import contextlib
import glob
import io
import logging
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image, ImageOps

from keras_rpe.arguments import check_choice, check_integer
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


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
"""The file endings, in lower case, that count as images in a folder or a glob."""

MIN_SIDE = 8
"""The smallest height and width of an image, in pixels."""

MAX_PIXELS = 2**28
"""The largest number of pixels that a file may claim."""

PILLOW_FORMATS = ("PNG", "JPEG")

_OTHER_FORMATS = ("BMP", "WEBP", "GIF")
_SHOWN = 20
_MAX_ID = 2**31 - 1
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# How many µm they are, as OME and ImageJ spell them.
_MICRONS = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer"), 1.0),
    **{"nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25_400.0, "m": 1e6},
}
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # By a quarter.
_PHOTOGRAPHS = ("JPEG", "MPO", "WEBP")
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
# Cameras append padding or thumbnails after the end mark; further back a full decode decides.
_TAIL_BYTES = 65536

# What it says of broken files becomes an error here; without a handler it would print it too.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class ImageHeader(NamedTuple):
    """The size and the kind of an image file."""

    kind: str  # "PNG", "JPEG", "MPO" (a JPEG of several views), "TIFF", "BMP", "WEBP" or "GIF"
    height: int
    width: int
    channels: int  # a palette image counts as one
    dtype: np.dtype  # of the stored values
    whole: bool  # whether the end looks as it should; if not, only decoding tells
    pages: int = 1  # images in the file, such as planes of a stack
    # Of each axis of the values of a TIFF: Y, X, C for channels, P for pages, U for either.
    roles: str = ""


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
            f"{path} cannot be read: it is not a PNG, JPEG or TIFF image, nor BMP, WebP or GIF."
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ImageFileError(f"{path} cannot be read as an image: {reason[:200]}.") from error


def _pillow_header(path: Path) -> ImageHeader:
    with Image.open(path, formats=(*PILLOW_FORMATS, *_OTHER_FORMATS)) as image:
        width, height = image.size
        kind = str(image.format)
        if kind in _PHOTOGRAPHS and image.getexif().get(_ORIENTATION, 1) in _TURNED:
            width, height = height, width
        # A photograph of two views (MPO) is read as its first; an animation is a stack.
        pages = 1 if kind in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
        channels = len(image.getbands())
        # How the decoder reads pixels, such as "RGB;16B", which it would cut to 8 bits.
        deep = kind == "PNG" and ";16" in str(image.tile[0][3])
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, _TAIL_BYTES), 2)
        end = file.read()
    whole = kind in ("JPEG", "MPO") and end.rstrip(b"\0").endswith(_JPEG_END)
    whole = whole or (kind == "PNG" and end.endswith(_PNG_END))
    dtype = np.dtype(np.uint16 if deep else np.uint8)
    return ImageHeader(kind, height, width, channels, dtype, whole, pages)


def _tiff_header(path: Path) -> ImageHeader:
    with tifffile.TiffFile(path) as file:
        if not len(file.pages):
            raise ImageFileError(f"{path} holds no image.")
        page = file.pages.first
        file.filehandle.seek(page.offset)
        (tags,) = struct.unpack(file.tiff.tagnoformat, file.filehandle.read(file.tiff.tagnosize))
        if len(list(page.tags)) < tags:  # the others point past the end, and are left out
            raise ImageFileError(f"{path} is cut short or broken: its TIFF tags are not whole.")
        if len(file.series) > 1:
            raise ImageFileError(
                f"{path} holds {len(file.series)} images that differ in size or kind: save the one "
                "that you need as a file."
            )
        series = file.series[0]
        roles = _roles(series.axes, series.shape)
        sizes = dict.fromkeys("UPYXC", 1)
        for role, size in zip(roles, series.shape):
            sizes[role] *= size
        end = max(
            offset + count
            for page in file.pages
            for offset, count in zip((0, *page.dataoffsets), (0, *page.databytecounts))
        )
        whole = end <= path.stat().st_size
        dtype = np.dtype(series.dtype)
        pages, height, width, channels = (sizes[role] for role in "PYXC")
        return ImageHeader("TIFF", height, width, channels, dtype, whole, sizes["U"] * pages, roles)


def _roles(axes: str, shape: tuple[int, ...]) -> str:
    """What each axis of a TIFF is: rows Y, columns X, channels C, pages P; U where it is unsaid."""
    large = [axis for axis, size in zip(axes, shape) if size != 1]
    kinds = {"Y": "Y", "X": "X", "S": "C", "C": "C", "Q": "U", "I": "U"}
    roles = "".join(kinds.get(axis, "P") for axis in axes)
    if "S" in large and "C" in large:  # Images in color, one for each channel.
        roles = "".join("P" if axis == "C" else role for axis, role in zip(axes, roles))
    unknown = len(shape) == 3 and axes[0] in "QI" and axes[1:] == "YX"
    if unknown and shape[2] < MIN_SIDE <= min(shape[:2]):
        return "YXC"  # Written as pages, and yet channels that come last.
    return roles


class _Chosen(NamedTuple):
    """Which part of a file is wanted; numbers from 1."""

    channel: int | None = None
    page: int | None = None
    project: str | None = None


def _decode(path: Path, header: ImageHeader, labels: bool, chosen: _Chosen) -> np.ndarray:
    """Decode (H, W) or (H, W, C) in the stored type; labels are the indices of a palette."""
    with _one_sentence(path):
        if header.kind == "PNG" and not header.whole and _PNG_END not in path.read_bytes():
            raise ImageFileError(f"{path} cannot be read as an image: it is cut short.")
        if header.kind == "TIFF":
            return _decode_tiff(path, header, chosen)
        with Image.open(path, formats=(*PILLOW_FORMATS, *_OTHER_FORMATS)) as image:
            if header.dtype == np.uint16:
                deep = header.channels > 1
                return _decode_deep_png(path) if deep else np.asarray(image).astype(np.uint16)
            frames = range(header.pages) if chosen.project else [(chosen.page or 1) - 1]
            pages = [_frame(image, frame, labels) for frame in frames]
        return _projected(np.stack(pages), chosen.project) if chosen.project else pages[0]


def _frame(image: Image.Image, number: int, labels: bool) -> np.ndarray:
    if number:
        image.seek(number)
    image.load()
    if image.format in _PHOTOGRAPHS:  # They are turned as their camera was held.
        image = ImageOps.exif_transpose(image)
    if image.mode not in ("1", "L", "RGB", "RGBA") and not (labels and image.mode == "P"):
        alpha = image.mode in ("LA", "La", "RGBa")
        return np.asarray(image.convert("RGBA" if alpha else "RGB"))
    return np.asarray(image)


def _projected(pages: np.ndarray, project: str) -> np.ndarray:
    """One image of a stack, the first axis; a mean is rounded to the type of the values."""
    if project == "max":
        return pages.max(axis=0)
    mean = pages.mean(axis=0, dtype=np.float64)
    return (np.round(mean) if pages.dtype.kind in "iu" else mean).astype(pages.dtype)


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


def _decode_tiff(path: Path, header: ImageHeader, chosen: _Chosen) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        try:
            pixels = series.asarray()
        except (ValueError, ModuleNotFoundError) as error:
            # Compressions such as LZW need a package of codecs, which Pillow brings along.
            if isinstance(error, ValueError) and "imagecodecs" not in str(error):
                raise
            with Image.open(path, formats=("TIFF",)) as image:
                pixels = np.asarray(image)
            if pixels.dtype != header.dtype or pixels.size != np.prod(series.shape):
                raise
            pixels = pixels.reshape(series.shape)
    # Pages first, in their order, then rows, columns and channels.
    order = sorted(range(pixels.ndim), key=lambda axis: "UPYXC".index(header.roles[axis]))
    pixels = pixels.transpose(order).reshape(
        header.pages, header.height, header.width, header.channels
    )
    if chosen.project:
        pixels = _projected(pixels, chosen.project)
    else:
        pixels = pixels[(chosen.page or 1) - 1]
    return pixels[..., 0] if header.channels == 1 else pixels


def read_image(
    path: str | Path,
    channel: int | None = None,
    page: int | None = None,
    project: str | None = None,
) -> np.ndarray:
    """Read one image with the values that the file stores.

    Palette images become RGB, images of one bit 0 and 255, gray with alpha RGBA, and CMYK or
    YCbCr RGB. 16-bit PNGs keep their 16 bits. Photographs (JPEG, WebP) are turned as their EXIF
    orientation says. TIFF values that are neither 8 nor 16 bits without sign become float32. Axes
    of TIFF files are those of OME or ImageJ metadata; all but rows, columns and channels count as
    pages.

    Args:
        path: A PNG, JPEG, TIFF, BMP, WebP or GIF file; its first bytes count, not its ending.
        channel: Only this channel, from 1, as gray; `None`: all, which must be 1, 3 or 4.
        page: Only this page of a stack, from 1; `None`: the file must hold one.
        project: In place of a page, "max" or "mean" over all pages.

    Returns:
        An array of shape (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16 or float32.

    Raises:
        ImageFileError: The file is missing, empty, a folder, cut short, no image, a stack of
            which no page is chosen, of channels of which none is chosen, smaller than 8 pixels on
            a side, larger than 2**28 pixels (PNG and JPEG: than Pillow's own limit, if that is
            lower), or holds NaN or infinite pixels; or it has no such channel or page.
        ValueError: If `channel`, `page` or `project` is none of these.

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
    _check_choice(channel, page, project)
    return _read(path, _Chosen(channel, page, project), any_channels=False)


def read_channels(
    path: str | Path, page: int | None = None, project: str | None = None
) -> np.ndarray:
    """Read all channels of one image, however many there are, such as to measure them.

    Args:
        path: As for `read_image`.
        page: As for `read_image`.
        project: As for `read_image`.

    Returns:
        An array (H, W) or (H, W, C) of uint8, uint16 or float32.

    Raises:
        ImageFileError: As `read_image`, but for the number of channels.
        ValueError: If `page` or `project` is none of these.

    Example:
        >>> import numpy as np
        >>> import tifffile
        >>> from keras_rpe.data import read_channels
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pixels = np.zeros((2, 9, 12), "uint8")
        ...     tifffile.imwrite(folder + "/a.tif", pixels, imagej=True, metadata={"axes": "CYX"})
        ...     read_channels(folder + "/a.tif").shape
        (9, 12, 2)
    """
    _check_choice(None, page, project)
    return _read(Path(path), _Chosen(None, page, project), any_channels=True)


def _check_choice(channel: int | None, page: int | None, project: str | None) -> None:
    for name, number in (("channel", channel), ("page", page)):
        if number is not None:
            check_integer(name, number)
    if project is not None:
        check_choice("project", project, ("max", "mean"))
    if page is not None and project is not None:
        raise ValueError("`page` and `project` must not both be given.")


def _read(path: Path, chosen: _Chosen, any_channels: bool) -> np.ndarray:
    channel, page, project = chosen
    header = read_header(path)
    if min(header.height, header.width) < MIN_SIDE:
        raise ImageFileError(
            f"{path} has {header.height} x {header.width} pixels, fewer than {MIN_SIDE} on a side."
        )
    unsaid = header.pages > 1 and "U" in header.roles and "P" not in header.roles
    if unsaid and header.channels == 1 and page is None and project is None and channel:
        channel, page = None, channel
    if header.pages > 1 and page is None and project is None:
        raise ImageFileError(
            f"{path} is a stack of {header.pages} images: choose one by `page`, or `project` them."
        )
    total = header.height * header.width * header.channels * (header.pages if project else 1)
    if total > MAX_PIXELS * 4:
        raise ImageFileError(f"{path} holds {total} values, more than are read: choose a `page`.")
    channels = 3 if header.kind == "GIF" else header.channels
    for name, given, count in (("page", page, header.pages), ("channel", channel, channels)):
        if (given or 1) > count:
            known = f"{count} {name}s, from 1 to {count}" if count > 1 else f"one {name}"
            raise ImageFileError(f"{path} has {known}. Received: {name}={given}")
    with_alpha = (header.kind, header.channels) == ("PNG", 2)
    few = header.channels in (1, 3, 4) or with_alpha or any_channels
    if channel is None and not few:
        raise ImageFileError(
            f"{path} has {header.channels} channels, not 1, 3 or 4: choose one by `channel`."
        )
    image = _decode(path, header, labels=False, chosen=_Chosen(channel, page, project))
    if channel is not None and image.ndim == 3:
        image = image[..., channel - 1]
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
        path: A PNG of 8 or 16 bits (a palette PNG gives its indices) or a TIFF of integers.

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
    labels = _decode(path, header, labels=True, chosen=_Chosen())
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
    if header.kind not in ("PNG", "TIFF"):
        raise ImageFileError(
            f"{path} is a {header.kind}, which may change ids: store labels as PNG or TIFF."
        )
    if header.pages != 1:
        raise ImageFileError(f"{path} is a stack of {header.pages} images, but labels are one.")
    if header.channels != 1:
        raise ImageFileError(f"{path} has {header.channels} channels, but labels have one.")
    if header.dtype.kind not in "iub":
        raise ImageFileError(f"{path} holds values of type {header.dtype}, not whole-number ids.")


def read_pixel_size(path: str | Path) -> float | None:
    """Read the side of a pixel from the metadata of a TIFF file.

    Args:
        path: The file.

    Returns:
        The size in µm, from OME or ImageJ metadata, or from a resolution in pixels per centimeter,
        or per inch where that is finer than 10 µm; `None` if the file says nothing of it.

    Raises:
        ImageFileError: The file cannot be read.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data import read_pixel_size, write_labels
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_labels(folder + "/cell.tif", np.eye(9, dtype=int), pixel_size=0.5)
        ...     round(read_pixel_size(folder + "/cell.tif"), 6)
        0.5
    """
    path = Path(path)
    if read_header(path).kind != "TIFF":
        return None
    with _one_sentence(path), tifffile.TiffFile(path) as file:
        size = _ome_pixel_size(file) or _resolution(file)
    return size if size and np.isfinite(size) and size > 0 else None


def _ome_pixel_size(file: tifffile.TiffFile) -> float | None:
    found = re.search(r'PhysicalSizeX="([^"]+)"', file.ome_metadata or "")
    unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', file.ome_metadata or "")
    try:
        return float(found[1]) * _MICRONS[unit[1] if unit else "µm"] if found else None
    except (ValueError, KeyError):
        return None


def _resolution(file: tifffile.TiffFile) -> float | None:
    tags = file.pages.first.tags
    if "XResolution" not in tags:
        return None
    numerator, denominator = tags["XResolution"].value
    if not numerator or not denominator:
        return None
    name = str((file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ")
    unit = _MICRONS.get(name)
    if unit is None:
        unit = {2: 25_400.0, 3: 10_000.0}.get(int(tags.valueof("ResolutionUnit", default=1)))
        # Screens and printers have pixels of that size as well.
        if unit == 25_400.0 and numerator / denominator < 2540:
            return None
    return unit * denominator / numerator if unit else None


def write_labels(path: str | Path, labels: np.ndarray, pixel_size: float | None = None) -> None:
    """Write a label image, whole or not at all.

    Args:
        path: the file to write: `.png` gives a PNG of 16 bits, `.tif` or `.tiff` a zlib
            compressed TIFF of 16 bits, or of 32 where an id needs them.
        labels: integers of shape (H, W), none negative.
        pixel_size: Side of a pixel in µm, for the resolution of a TIFF.

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
        scale: dict[str, Any] = {}
        if pixel_size is not None:
            scale = {"resolution": (10_000 / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(buffer, stored, compression="zlib", photometric="minisblack", **scale)
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
