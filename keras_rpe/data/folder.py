"""A folder of images and label images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from keras_rpe.arguments import check_integer
from keras_rpe.data.images import (
    IMAGE_SUFFIXES,
    MIN_SIDE,
    ImageFileError,
    LabelFolderError,
    check_label_header,
    raise_problems,
    read_header,
    read_image,
    read_labels,
)
from keras_rpe.data.labelled_images import LabelledImages, LabelMaps, chosen
from keras_rpe.data.labels import VOID, agreed_maps, size_text

_THREADS = 4


def label_folder(
    path: str | Path,
    *,
    images: str = "images/*",
    instances: str = "instances/*",
    classes: str | None = None,
    names: Iterable[str] | None = None,
    ignore_label: int | None = None,
    num_classes: int | None = None,
) -> LabelledImages:
    """Find the images of a folder and their instance label images, and check all of them.

    Only headers are read where they tell enough; pixels are read where a value can be wrong (float
    images, signed or 32-bit labels) or where a file looks cut short.

    With `classes`, an object has the class that most of its pixels have; pixels of another one,
    or of none, become void, which is `VOID` (-1) in both maps: train with `ignore_label=VOID`.
    Pixels of a class without an instance, such as sky, keep their class.

    Args:
        path: The folder.
        images: A glob inside the folder that the images match.
        instances: A glob inside the folder that the label images match; an image and its
            labels share their name without ending, or are `NAME.png` and `NAME_labels.png`, as
            `keras-rpe segment` writes them.
        classes: A glob inside the folder that images of each pixel's class match, 0 for the
            background; `None`: labels are only instances.
        names: Only these images, by their names without ending; no other file is checked.
        ignore_label: The number of void pixels in the files, such as 255; `None`: there are none.
        num_classes: The highest class that the files may have; `None`: any.

    Returns:
        The images with their label maps, sorted by name. An image is read as `read_image` does.

    Raises:
        LabelFolderError: If the folder does not exist, a glob matches no image file, two files of
            one kind share a name, a file has no partner or is unreadable, sizes differ, or labels
            are negative or not whole numbers; the message names up to 20 files and their reasons.
        ValueError: If an argument is not as above.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from keras_rpe.data import label_folder, write_image, write_labels
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("images", "instances"):
        ...         (Path(folder) / part).mkdir()
        ...     write_image(folder + "/images/cell.png", np.zeros((8, 8, 3), "uint8"))
        ...     write_labels(folder + "/instances/cell.png", np.diag([3, 3, 3, 255, 255, 0, 0, 0]))
        ...     found = label_folder(folder, ignore_label=255)
        ...     image, instances, _ = found[0]
        >>> found.names, image.shape, instances.diagonal().tolist()
        (('cell',), (8, 8, 3), [3, 3, 3, -1, -1, 0, 0, 0])
    """
    for argument, value in (("ignore_label", ignore_label), ("num_classes", num_classes)):
        if value is not None:
            check_integer(argument, value, 1, 2**31 - 1)
    if num_classes is not None and classes is None:
        raise ValueError(
            f"`num_classes` needs `classes`. Received: num_classes={num_classes}, classes=None"
        )
    path = Path(path)
    if not path.is_dir():
        raise LabelFolderError(f"`path` must be an existing folder. Received: path={str(path)!r}")
    globs = {"images": images, "instances": instances, "classes": classes}
    parts = [_files_by_name(path, key, one) for key, one in globs.items() if one is not None]
    parts[1:] = [_as_segmented(part, parts[0]) for part in parts[1:]]
    every = sorted(set().union(*parts))
    files = chosen({name: tuple(part.get(name) for part in parts) for name in every}, names)
    with ThreadPoolExecutor(_THREADS) as pool:
        raise_problems(pool.map(_problem, files.values()), f"image pairs in {path}")
    return LabelledImages(
        files,
        partial(_read, ignore_label=ignore_label, num_classes=num_classes),
        photographs=False,
        void=ignore_label is not None or classes is not None,
        classes=classes is not None,
    )


def _files_by_name(path: Path, argument: str, pattern: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(path.glob(pattern)):
        if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
            continue
        if file.stem in files:
            raise LabelFolderError(
                f"{argument}={pattern!r} in {path} matches two files of the name "
                f"{file.stem!r}: {files[file.stem].relative_to(path)} and "
                f"{file.relative_to(path)}."
            )
        files[file.stem] = file
    if not files:
        raise LabelFolderError(
            f"{path} holds no image files ({', '.join(IMAGE_SUFFIXES)}) that match "
            f"{argument}={pattern!r}."
        )
    return files


def _as_segmented(labels: dict[str, Path], images: dict[str, Path]) -> dict[str, Path]:
    """Label images by the names of their images, which may be without `_labels`."""
    missing = images.keys() - labels.keys()
    short = {name: name.removesuffix("_labels") for name in labels}
    return {short[name] if short[name] in missing else name: file for name, file in labels.items()}


def _problem(files: Sequence[Path | None]) -> str | None:
    """Why the files of an image cannot be used, starting with a file name, or None."""
    found = [file for file in files if file is not None]
    for file, what in zip(files, ("image", "mask", "map of classes")):
        if file is None:
            return f"{found[0].name}: it has no {what}"
    wanted = None
    for file in found:
        try:
            size = _checked_size(file, is_image=file is found[0])
        except ImageFileError as error:
            # The sentence starts with the whole path; the name is enough inside a list.
            return f"{file.name}: it {str(error).removeprefix(f'{file} ').removesuffix('.')}"
        wanted = wanted or size
        if size != wanted:
            return (
                f"{file.name}: it has {size_text(size)} pixels, but its image "
                f"{found[0].name} has {size_text(wanted)}"
            )
    return None


def _checked_size(path: Path, is_image: bool) -> tuple[int, int]:
    """Check a file, by its header where that tells enough."""
    header = read_header(path)
    plain = header.whole and header.dtype in (np.uint8, np.uint16)
    if not is_image:
        check_label_header(path, header)
        if not plain:
            read_labels(path)
    elif not (
        plain
        and header.pages == 1
        and header.channels in (1, 3, 4)
        and min(header[1:3]) >= MIN_SIDE
    ):
        read_image(path)
    return header.height, header.width


def _read(files: Sequence[Path], ignore_label: int | None, num_classes: int | None) -> LabelMaps:
    image, *labels = read_image(files[0]), *map(read_labels, files[1:])
    for file, one in zip(files[1:], labels):
        if one.shape != image.shape[:2]:
            raise ImageFileError(f"{file} and its image differ in size.")
        if ignore_label is not None:
            one[one == ignore_label] = VOID
    if len(labels) == 1:
        return LabelMaps(image, labels[0], None)
    highest = int(labels[1].max())
    if num_classes is not None and highest > num_classes:
        raise ImageFileError(f"{files[2]} has the class {highest}, above num_classes.")
    return LabelMaps(image, *agreed_maps(files[2], *labels))
