"""Find the files of COCO in a folder that a user filled by hand."""

from __future__ import annotations

from pathlib import Path

from keras_rpe.data.images import LabelFolderError


def coco_source(manual_folder: str | Path, kind: str) -> dict[str, tuple[Path, Path]]:
    """Find the annotations of one kind, and their images.

    Args:
        manual_folder: Holds `annotations/KIND_NAME.json` and, for each, the folder `NAME` of
            images; for panoptic segments also `annotations/panoptic_NAME`, the folder of PNG files.
        kind: "instances" or "panoptic".

    Returns:
        The JSON file and the folder of images of each NAME, such as "train2017".

    Raises:
        LabelFolderError: If there is none, or a folder of images is missing.

    Example:
        >>> from keras_rpe.data.coco_source import coco_source
        >>> coco_source("no_such_folder", "instances")
        Traceback (most recent call last):
        ...
        keras_rpe.data.folder.LabelFolderError: no_such_folder holds no annotations/...
    """
    manual_folder = Path(manual_folder)
    found = {}
    for file in sorted((manual_folder / "annotations").glob(f"{kind}_*.json")):
        name = file.stem.removeprefix(f"{kind}_")
        images = manual_folder / name
        if not images.is_dir():
            raise LabelFolderError(f"{images} is missing: {file} needs this folder of images.")
        found[name] = file, images
    if not found:
        raise LabelFolderError(f"{manual_folder} holds no annotations/{kind}_*.json.")
    return found
