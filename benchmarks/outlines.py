"""Write the outlines of a thousand nuclei as files of other programs: seconds and areas.

    pip install "keras-rpe[outlines,coco]" shapely
    python benchmarks/outlines.py

The nuclei are ellipses with wavy edges on 2048 x 2048 pixels. Some are cut by the border of the
image, some have a hole, and others touch. The areas are those that shapely, roifile and pycocotools
read from the files; all of them must be the numbers of pixels. The seconds are the median of five
runs; the first one, which loads a library, is not among them. Two seconds are the limit.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import roifile
import shapely
from pycocotools import mask as coco_mask
from skimage.segmentation import relabel_sequential

from keras_rpe.data import write_coco, write_geojson, write_imagej_rois
from keras_rpe.results import Instances

SIDE, COUNT, LIMIT, RUNS = 2048, 1000, 2.0, 5


def draw_nuclei() -> np.ndarray:
    """A label map of nuclei on a jittered grid."""
    random = np.random.default_rng(0)
    labels = np.zeros((SIDE, SIDE), "int32")
    grid = int(np.ceil(np.sqrt(COUNT)))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for k in range(COUNT):
        center = (np.array(divmod(k, grid)) + random.uniform(0.1, 0.9, 2)) * SIDE / grid
        # Only a part of the image, as the rest of it is far away.
        top, left = np.maximum(center.astype(int) - 50, 0)
        near = slice(top, top + 100), slice(left, left + 100)
        y, x = rows[near] - center[0], columns[near] - center[1]
        turn = random.uniform(0, np.pi)
        a, b = random.uniform(14, 30, 2)
        u, v = np.cos(turn) * y + np.sin(turn) * x, np.cos(turn) * x - np.sin(turn) * y
        radius = np.hypot(u / a, v / b) * (1 + 0.08 * np.sin(7 * np.arctan2(v, u)))
        inside = (radius <= 1) & (radius > (0.3 if k % 10 == 0 else -1))
        labels[near][inside] = k + 1
    return relabel_sequential(labels)[0].astype("int32")


def geojson_areas(path: Path) -> list[float]:
    """The areas by shapely."""
    features = json.loads(path.read_text())["features"]
    return [shapely.geometry.shape(one["geometry"]).area for one in features]


def ring_area(ring: np.ndarray) -> float:
    """The area of a ring, with a sign by its direction."""
    x, y = np.asarray(ring, float).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def imagej_areas(path: Path) -> list[float]:
    """The areas of the paths that roifile reads; holes run the other way round."""
    rois = [roi.coordinates(multi=True) for roi in roifile.roiread(path)]
    return [abs(sum(map(ring_area, rings))) for rings in rois]


def coco_areas(path: Path) -> list[float]:
    """The areas by pycocotools."""
    annotations = json.loads(path.read_text())["annotations"]
    return [float(coco_mask.area(one["segmentation"])) for one in annotations]


def main() -> None:
    """Print the table."""
    labels = draw_nuclei()
    count = int(labels.max())
    areas = np.bincount(labels.ravel())[1:]
    boxes = np.zeros((count, 4))
    found = Instances(labels, np.ones(count), boxes, np.zeros(count, int))
    writers = {
        "a.geojson": (write_geojson, geojson_areas),
        "a.zip": (write_imagej_rois, imagej_areas),
        "a.json": (lambda path, one: write_coco(path, one, "a.png"), coco_areas),
    }
    print(f"{count} nuclei of {areas.min()} to {areas.max()} pixels")
    print("file       seconds  limit  areas as in the label map")
    with tempfile.TemporaryDirectory() as folder:
        for name, (write, read) in writers.items():
            path, seconds = Path(folder) / name, []
            for _ in range(RUNS + 1):
                start = time.perf_counter()
                write(path, found)
                seconds.append(time.perf_counter() - start)
            equal = int((np.array(read(path)) == areas).sum())
            print(f"{name:<10} {statistics.median(seconds[1:]):7.2f}  {LIMIT:5.1f}  {equal}")


if __name__ == "__main__":
    main()
