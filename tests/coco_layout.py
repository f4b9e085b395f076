"""Write scenes in the layout of COCO: instances and panoptic segments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
from voc_layout import VOID_INDEX, save_jpeg, scene

from keras_rpe.data import write_image

Scenes = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
CATEGORIES = ((1, "person"), (18, "dog"), (44, "bottle"))
"""Their ids have gaps, as in COCO."""


def run_lengths(mask: np.ndarray) -> list[int]:
    """Runs of 0 and 1 in turn, columns first."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [2]])
    places = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate([[0], places])).tolist()
    return runs or [mask.size]


def compressed(runs: list[int]) -> str:
    """COCO's text of run lengths."""
    size = [1, sum(runs)]
    return pycocotools.mask.frPyObjects({"size": size, "counts": runs}, *size)["counts"].decode()


def annotation(key: int, image: int, category: int, mask: np.ndarray, form: str) -> dict[str, Any]:
    """An annotation of run lengths: "crowd", "runs", which are not compressed, or "text"."""
    runs = run_lengths(mask)
    counts = compressed(runs) if form == "text" else runs
    return {
        "id": key,
        "image_id": image,
        "category_id": category,
        "iscrowd": int(form == "crowd"),
        "segmentation": {"size": list(mask.shape), "counts": counts},
        "area": float(mask.sum()),
    }


def image_entry(key: int, file_name: str, mask: np.ndarray) -> dict[str, Any]:
    """An entry of the list of images."""
    return {"id": key, "file_name": file_name, "height": mask.shape[0], "width": mask.shape[1]}


def write_instances(folder: Path, count: int = 4, split: str = "val2017") -> Scenes:
    """Write `annotations/instances_SPLIT.json` and the images, and return the scene of each name.

    Void outlines are crowds; odd objects are compressed run lengths and even ones are not.
    """
    images, annotations, scenes = [], [], {}
    for seed in range(1, count + 1):
        image, instances, classes = scene(seed, classes=len(CATEGORIES))
        name = f"{seed:012d}"
        scenes[name] = image, instances, classes
        images.append(image_entry(seed, f"{name}.jpg", instances))
        save_jpeg(folder / split / f"{name}.jpg", image)
        for number in np.unique(instances[instances > 0]).tolist():
            mask = instances == number
            crowd = number == VOID_INDEX
            form = "crowd" if crowd else ("runs", "text")[number % 2]
            kind = 1 if crowd else int(classes[mask][0])
            category = CATEGORIES[kind - 1][0]
            annotations.append(annotation(1000 * seed + number, seed, category, mask, form))
    categories = [{"id": key, "name": name} for key, name in CATEGORIES]
    write_json(folder, f"instances_{split}", images, annotations, categories)
    return scenes


def write_panoptic(folder: Path, count: int = 4, split: str = "val2017") -> Scenes:
    """Write `annotations/panoptic_SPLIT.json`, its PNG files and the images.

    The lower half of the background is the stuff "sky", class 4; the upper half is not labelled.
    """
    images, annotations, scenes = [], [], {}
    for seed in range(1, count + 1):
        image, instances, classes = scene(seed, classes=len(CATEGORIES))
        sky = (instances == 0) & (np.indices(instances.shape)[0] >= instances.shape[0] // 2)
        classes = np.where(sky, len(CATEGORIES) + 1, np.where(instances == 0, 255, classes))
        instances = np.where((instances == 0) & ~sky, VOID_INDEX, instances)
        name = f"{seed:012d}"
        scenes[name] = image, instances, classes
        images.append(image_entry(seed, f"{name}.jpg", instances))
        save_jpeg(folder / split / f"{name}.jpg", image)
        keys, segments = np.zeros(instances.shape, int), []
        for number in (*np.unique(instances[instances > 0]).tolist(), 0):
            if number == VOID_INDEX:
                continue
            mask = instances == number
            key = 70000 * (number + 1) + seed
            category = CATEGORIES[classes[mask][0] - 1][0] if number else 187
            keys[mask] = key
            segments.append({"id": key, "category_id": category, "iscrowd": 0})
        colors = np.stack([keys % 256, keys // 256 % 256, keys // 65536], -1).astype(np.uint8)
        (folder / "annotations" / f"panoptic_{split}").mkdir(parents=True, exist_ok=True)
        write_image(folder / "annotations" / f"panoptic_{split}" / f"{name}.png", colors)
        annotations.append(
            {"image_id": seed, "file_name": f"{name}.png", "segments_info": segments}
        )
    categories = [{"id": key, "name": name, "isthing": 1} for key, name in CATEGORIES]
    categories.append({"id": 187, "name": "sky", "isthing": 0})
    write_json(folder, f"panoptic_{split}", images, annotations, categories)
    return scenes


def write_json(
    folder: Path, name: str, images: list[Any], annotations: list[Any], categories: list[Any]
) -> Path:
    """Write a JSON file into `annotations`."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    path = folder / "annotations" / f"{name}.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path
