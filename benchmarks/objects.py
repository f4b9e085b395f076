"""Compare proposals: recall of presets, boxes, Felzenszwalb's segments and Selective Search.

    python benchmarks/objects.py PHOTOS_A PHOTOS_B --models objects --out proposals.png

Each folder holds `images` and `instances`, as for `examples/train_photographs.py`. The test images
are those that the script holds out from training: a fifth of each folder. Void pixels are removed
from all masks. AR@k is the recall of the k best proposals of an image, averaged over the IoU
thresholds .50, .55, …, .95, and AR50@k is the recall at IoU .50; "s" is the median of the seconds
per image.

- "boxes": the whole image, and boxes of 3/4, 1/2, 1/3, 1/4 … of its sides, each size in a grid
  whose neighbors overlap by half or more; coarse boxes first, and from the middle of the image
  outwards.
- "Felzenszwalb": the segments of `skimage.segmentation.felzenszwalb`, ranked by size: of each
  scale, and of all scales together without segments that are nearly the same as a larger one.
- "Selective Search" (Uijlings et al., IJCV 2013): the boxes of OpenCV in its fast mode, in their
  order. Without `pip install opencv-contrib-python-headless` that row is left out, and a line says
  so.
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

TEST_SHARE, VOID_IN_FILES = 0.2, 255
SCALES = (50, 150, 500, 1500)
LEAST_AREA = 16
NUMBERS = (10, 60)
MAX_IOU = 0.8  # Of two proposals, as in an `ObjectProposer`.

Method = Callable[[np.ndarray], np.ndarray]


def boxes(image: np.ndarray) -> np.ndarray:
    """Boxes as masks, boolean `(60, H, W)`."""
    height, width = image.shape[:2]
    masks: list[np.ndarray] = []
    for parts, side in ((1, 1.0), (2, 0.75), (3, 0.5), (5, 1 / 3), (7, 0.25)):
        starts = np.linspace(0.0, 1.0 - side, parts) if parts > 1 else np.zeros(1)
        corners = [(y, x) for y in starts for x in starts]
        middle = (1.0 - side) / 2
        for y, x in sorted(corners, key=lambda c: np.hypot(c[0] - middle, c[1] - middle)):
            mask = np.zeros((height, width), bool)
            rows, columns = (
                slice(round(start * length), round((start + side) * length))
                for start, length in ((y, height), (x, width))
            )
            mask[rows, columns] = True
            masks.append(mask)
    return np.stack(masks[: NUMBERS[-1]])


def segments(scales: tuple[int, ...]) -> Method:
    """Felzenszwalb's segments at some scales, the largest first."""

    def propose(image: np.ndarray) -> np.ndarray:
        from skimage.segmentation import felzenszwalb

        found = []
        for scale in scales:
            labels = felzenszwalb(image, scale=scale, sigma=0.8, min_size=LEAST_AREA)
            areas = np.bincount(labels.ravel())
            largest = np.argsort(-areas)[: NUMBERS[-1] * 2]
            found += [(int(areas[i]), labels == i) for i in largest]
        found.sort(key=lambda one: -one[0])
        kept: list[np.ndarray] = []
        for _, mask in found:
            shared = [(other & mask).sum() / (other | mask).sum() for other in kept]
            if max(shared, default=0.0) <= MAX_IOU:
                kept.append(mask)
            if len(kept) == NUMBERS[-1]:
                break
        return np.stack(kept)

    return propose


def selective_search(image: np.ndarray) -> np.ndarray:
    """Boxes of Selective Search as masks, at most `(60, H, W)`."""
    import cv2

    cv2.setRNGSeed(0)  # The order is partly drawn.
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    search.switchToSelectiveSearchFast()
    found = search.process()[: NUMBERS[-1]]
    masks = np.zeros((len(found), *image.shape[:2]), bool)
    for mask, (x, y, width, height) in zip(masks, found):
        mask[y : y + height, x : x + width] = True
    return masks


def picture(image: np.ndarray, truth: np.ndarray, found: list[np.ndarray]) -> np.ndarray:
    """The objects and the same number of best proposals of each method, side by side."""
    from skimage.transform import resize

    from keras_rpe.visualization import overlay_instances

    count = max(1, len(np.unique(truth[truth > 0])))
    maps = [truth.clip(min=0)]
    for masks in found:
        best = np.zeros(truth.shape, "int32")
        for k in reversed(range(min(count, len(masks)))):  # The best is on top.
            best[masks[k]] = k + 1
        maps.append(best)
    size = (160, round(image.shape[1] * 160 / image.shape[0]))
    return np.concatenate([resize(overlay_instances(image, one), size) for one in maps], axis=1)


def main() -> None:
    """Print the tables for all images and for each folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--models", nargs="*", default=["objects"], help="presets")
    parser.add_argument("--no-peers", action="store_true", help="only the presets")
    parser.add_argument("--out", type=Path, help="a picture of some test images")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from keras_rpe.data import VOID, label_folder
    from keras_rpe.metrics import AverageRecall, GroundTruth
    from keras_rpe.models import ObjectProposer

    methods: dict[str, Method] = {}
    for preset in options.models:
        model = ObjectProposer.from_preset(preset)
        methods[preset] = lambda image, model=model: (
            model.predict_proposals(image, NUMBERS[-1]).masks
        )
    if not options.no_peers:
        methods["boxes"] = boxes
        methods |= {f"Felzenszwalb, scale {scale}": segments((scale,)) for scale in SCALES}
        methods["Felzenszwalb, all scales"] = segments(SCALES)
        if importlib.util.find_spec("cv2") is None:
            print("No Selective Search: pip install opencv-contrib-python-headless")
        else:
            methods["Selective Search"] = selective_search
    tables: dict[str, dict[str, AverageRecall]] = {}
    counts: dict[str, list[int]] = {}
    seconds: dict[str, dict[str, list[float]]] = {}
    rows = []
    for folder in options.folders:
        name = str(folder)
        for table in ("all", name):
            tables.setdefault(
                table, {one: AverageRecall(NUMBERS, exclude_void=True) for one in methods}
            )
        _, test = label_folder(folder, ignore_label=VOID_IN_FILES).split(TEST_SHARE)
        for number, (image, labels, _) in enumerate(test):
            found = []
            for method, propose in methods.items():
                start = time.perf_counter()
                found.append(propose(image[..., :3]))
                for table in ("all", name):
                    taken = seconds.setdefault(table, {}).setdefault(method, [])
                    taken.append(time.perf_counter() - start)
            truth = GroundTruth(labels, ignore_label=VOID)
            for table in ("all", name):
                for method, masks in zip(methods, found):
                    tables[table][method].update_state(truth, masks)
                images, objects = counts.get(table, [0, 0])
                counts[table] = [images + 1, objects + len(np.unique(labels[labels > 0]))]
            if number % 4 == 0:
                shown = [*found[: len(options.models)], found[-1]]
                rows.append(picture(image[..., :3], labels, shown))
    for table, recalls in tables.items():
        images, objects = counts[table]
        print(f"\n{table}: {images} test images, {objects} objects")
        names = list(next(iter(recalls.values())).result())
        print(f"{'':26s}" + "".join(f"{name:>9s}" for name in [*names, "s"]))
        for method, recall in recalls.items():
            cells = [*recall.result().values(), statistics.median(seconds[table][method])]
            print(f"{method:26s}" + "".join(f"{value:9.3f}" for value in cells))
    if options.out is not None:
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(one, ((0, 4), (0, width - one.shape[1]), (0, 0))) for one in rows]
        keras.utils.save_img(options.out, 255 * np.concatenate(padded), scale=False)


if __name__ == "__main__":
    main()
