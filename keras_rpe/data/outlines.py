"""Outlines of instances as files of other programs: QuPath, ImageJ, and readers of COCO."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_rpe.optional_import import optional_import
from keras_rpe.results import Instances, Proposals
from keras_rpe.written_file import write_file

Rings = list[np.ndarray]
"""The outer ring of a polygon and those of its holes, each `(n, 2)`, x and y, first point last."""

_MOVE, _LINE, _CLOSE = 0, 1, 4  # Of the paths of ImageJ.


def polygons(labels: Any) -> list[list[Rings]]:
    """Trace the instances of a label map along the edges of their pixels.

    Args:
        labels: Integers `(H, W)`, 0 = background, instance k has the pixels equal to k.

    Returns:
        For each instance from 1 to the highest its polygons, one for each part of it whose pixels
        share edges. Coordinates are whole pixels from the upper left corner of the image, so areas
        are those of the pixels; holes run the other way round than outer rings.

    Raises:
        ValueError: If `labels` are no such map.
        ImportError: If the extra `outlines` is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.data import polygons
        >>> [[[ring]]] = polygons(np.array([[0, 1], [0, 1]]))
        >>> ring.tolist()
        [[1, 0], [1, 2], [2, 2], [2, 0], [1, 0]]
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "biu" or (labels.size and labels.min() < 0):
        raise ValueError(
            "`labels` must be a map (H, W) of integers from 0. "
            f"Received: shape={labels.shape}, dtype={labels.dtype}"
        )
    features = optional_import("rasterio.features", "outlines")
    found: list[list[Rings]] = [[] for _ in range(int(labels.max(initial=0)))]
    labels = labels.astype(np.int32)
    for shape, value in features.shapes(labels, mask=labels > 0, connectivity=4):
        found[int(value) - 1].append([np.array(ring, int) for ring in shape["coordinates"]])
    return found


def write_geojson(path: str | Path, instances: Instances, class_name: str = "Nucleus") -> None:
    """Write the outlines of one image as GeoJSON, which QuPath opens as detections.

    Each feature has `objectType`, `classification`, and a list `measurements` of the score and the
    area in pixels.

    Args:
        path: The file, `….geojson`.
        instances: What `predict_instances` gave.
        class_name: Name of the class; of several, a number follows it.

    Raises:
        ImportError: If the extra `outlines` is not installed.
        OSError: If the file cannot be written; nothing is left behind.

    Example:
        >>> import json, tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from keras_rpe.data import write_geojson
        >>> from keras_rpe.models import Instances
        >>> one = np.ones(1, "int32")
        >>> boxes = np.array([[0, 0, 2, 3]])
        >>> found = Instances(np.ones((2, 3), "int32"), np.array([0.9]), boxes, one)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_geojson(folder + "/a.geojson", found)
        ...     read = json.loads(Path(folder, "a.geojson").read_text())
        >>> read["features"][0]["geometry"]["type"]
        'Polygon'
    """
    several = len(set(instances.classes.tolist())) > 1
    features = []
    for parts, score, kind, area in _described(instances):
        rings = [[ring.tolist() for ring in part] for part in parts]
        shape = {"type": "Polygon", "coordinates": rings[0]}
        if len(rings) > 1:
            shape = {"type": "MultiPolygon", "coordinates": rings}
        name = f"{class_name} {kind}" if several else class_name
        values = {"Score": score, "Area px^2": area}
        features.append(
            {
                "type": "Feature",
                "geometry": shape,
                "properties": {
                    "objectType": "detection",
                    "classification": {"name": name},
                    "measurements": [
                        {"name": key, "value": value}
                        for key, value in values.items()
                        if value is not None
                    ],
                },
            }
        )
    content = {"type": "FeatureCollection", "features": features}
    write_file(Path(path), json.dumps(content))


def write_imagej_rois(path: str | Path, instances: Instances) -> None:
    """Write the outlines of one image as a ZIP of ROIs, which ImageJ and Fiji open.

    Args:
        path: The file, `….zip`.
        instances: What `predict_instances` gave. ROI `0007` is that of instance 7; one with holes
            or of several parts is a composite.

    Raises:
        ImportError: If the extra `outlines` is not installed.
        OSError: If the file cannot be written; nothing is left behind.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import roifile
        >>> from keras_rpe.data import write_imagej_rois
        >>> from keras_rpe.models import Instances
        >>> one = np.ones(1, "int32")
        >>> boxes = np.array([[0, 0, 2, 3]])
        >>> found = Instances(np.ones((2, 3), "int32"), np.array([0.9]), boxes, one)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_imagej_rois(folder + "/a.zip", found)
        ...     [roi.name for roi in roifile.roiread(folder + "/a.zip")]
        ['0001']
    """
    roifile = optional_import("roifile", "outlines")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number, parts in enumerate(polygons(instances.labels), start=1):
            if not parts:
                continue
            name, rings = f"{number:04d}", [ring for part in parts for ring in part]
            roi = roifile.ImagejRoi.frompoints(rings[0][:-1], name=name)
            if len(rings) > 1:
                points = np.concatenate(rings)
                (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
                path_values = np.concatenate([_segments(ring) for ring in rings])
                roi = roifile.ImagejRoi(
                    name=name,
                    roitype=roifile.ROI_TYPE.RECT,
                    left=int(left),
                    top=int(top),
                    right=int(right),
                    bottom=int(bottom),
                    shape_roi_size=len(path_values),
                    multi_coordinates=path_values,
                )
            archive.writestr(f"{name}.roi", roi.tobytes())
    write_file(Path(path), content.getvalue())


def _segments(ring: np.ndarray) -> np.ndarray:
    """A ring as ImageJ writes paths: the kind of each step, and where it ends."""
    steps = np.full(len(ring) - 1, _LINE)
    steps[0] = _MOVE
    values = np.concatenate([steps[:, None], ring[:-1]], axis=1).ravel()
    return np.append(values, _CLOSE).astype(np.float32)


def write_coco(path: str | Path, found: Instances | Proposals, image_name: str) -> None:
    """Write the masks of one image as COCO JSON: annotations with run lengths and scores.

    Args:
        path: The file, `….json`.
        found: What `predict_instances` or `predict_proposals` gave.
        image_name: Name of the image file, for `file_name`.

    Raises:
        ImportError: If the extra `coco` is not installed.
        OSError: If the file cannot be written; nothing is left behind.

    Example:
        >>> import json, tempfile
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from keras_rpe.data import write_coco
        >>> from keras_rpe.models import Instances
        >>> one = np.ones(1, "int32")
        >>> boxes = np.array([[0, 0, 2, 3]])
        >>> found = Instances(np.ones((2, 3), "int32"), np.array([0.9]), boxes, one)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_coco(folder + "/a.json", found, "a.png")
        ...     read = json.loads(Path(folder, "a.json").read_text())
        >>> read["annotations"][0]["area"], read["annotations"][0]["bbox"]
        (6, [0, 0, 3, 2])
    """
    mask = optional_import("pycocotools.mask", "coco")
    if isinstance(found, Instances):
        height, width = found.labels.shape
        classes = found.classes.tolist()
        masks = [mask.frPyObjects(counts, height, width) for counts in _run_lengths(found)]
    else:
        height, width = found.masks.shape[1:]
        classes = [1] * len(found)
        stack = found.masks.transpose(1, 2, 0)
        masks = mask.encode(np.asfortranarray(stack.astype(np.uint8)))
    annotations = []
    rows = zip(masks, classes, found.boxes.tolist(), found.scores.tolist())
    for number, (encoded, kind, (top, left, bottom, right), score) in enumerate(rows, start=1):
        annotation = {
            "id": number,
            "image_id": 1,
            "category_id": kind,
            "segmentation": {"size": [height, width], "counts": encoded["counts"].decode()},
            "area": int(mask.area(encoded)),
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": 0,
        }
        annotations.append(annotation | ({"score": score} if np.isfinite(score) else {}))
    content = {
        "images": [{"id": 1, "file_name": image_name, "height": height, "width": width}],
        "categories": [{"id": kind, "name": str(kind)} for kind in sorted(set(classes))],
        "annotations": annotations,
    }
    write_file(Path(path), json.dumps(content))


def _run_lengths(instances: Instances) -> Iterator[dict[str, list[int]]]:
    """The mask of each instance as COCO counts it: down the columns."""
    flat = instances.labels.T.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.cumsum(np.bincount(flat, minlength=len(instances) + 1))
    for start, end in itertools.pairwise(ends):
        places = order[start:end]
        runs = np.flatnonzero(np.diff(places) > 1)
        starts = places[np.concatenate([[0], runs + 1])] if places.size else places
        stops = places[np.concatenate([runs, [-1]])] + 1 if places.size else places
        edges = np.concatenate([[0], np.stack([starts, stops], 1).ravel(), [flat.size]])
        yield {"counts": np.diff(edges).tolist(), "size": list(instances.labels.shape)}


def _described(
    instances: Instances,
) -> Iterator[tuple[list[Rings], float | None, int, int]]:
    """The polygons of each instance that has pixels, its score if known, class and area."""
    rows = zip(
        polygons(instances.labels),
        instances.scores.tolist(),
        instances.classes.tolist(),
        instances.areas.tolist(),
    )
    for parts, score, kind, area in rows:
        if parts:
            yield parts, score if np.isfinite(score) else None, kind, area
