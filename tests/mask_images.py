"""Random and real images of true and predicted masks, and COCO's own evaluation of them."""

import contextlib
import functools
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_rpe.metrics import Detections, GroundTruth


def rectangle(rng, shape):
    """A boolean map (H, W) with one rectangle."""
    rows, columns = (np.sort(rng.integers(0, size + 1, 2)) for size in shape)
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def random_image(rng, classes=3, crowd=True, ignored=False, void=True):
    """True and predicted masks that overlap, with few scores, so that there are ties."""
    shape = tuple(rng.integers(3, 12, 2))
    number = int(rng.integers(0, 6))
    true = np.array([rectangle(rng, shape) for _ in range(number)], bool).reshape(-1, *shape)
    true_classes = rng.integers(1, classes + 1, number)
    masks, labels = [], []
    for _ in range(int(rng.integers(0, 9))):
        if number and rng.random() < 0.8:
            index = rng.integers(number)
            masks.append(np.roll(true[index], rng.choice([-1, 0, 0, 0, 1], 2), axis=(0, 1)))
            labels.append(true_classes[index])
        else:
            masks.append(rectangle(rng, shape))
            labels.append(rng.integers(1, classes + 1))
    truth = GroundTruth(
        true,
        true_classes,
        crowd=rng.random(number) < 0.25 if crowd else None,
        ignored=rng.random(number) < 0.25 if ignored else None,
        void=rectangle(rng, shape) if void and rng.random() < 0.4 else None,
    )
    pred = np.array(masks, bool).reshape(-1, *shape)
    scores = rng.choice([0.1, 0.3, 0.5, 0.9], len(masks))
    return truth, Detections(pred, scores, np.array(labels, int))


def random_images(seed, number=4, **kwargs):
    """Lists of `number` true and predicted images."""
    rng = np.random.default_rng(seed)
    return tuple(map(list, zip(*(random_image(rng, **kwargs) for _ in range(number)))))


@functools.cache
def coco_photographs(data_root: Path):
    """The instances of COCO's photographs, and predictions made of them by known faults."""
    folder = data_root / "coco_ccby"
    if not folder.is_dir():
        pytest.skip(f"COCO photographs not found in {folder}")
    rng = np.random.default_rng(0)
    truths, predictions = [], []
    for path in sorted((folder / "instances").glob("*.png")):
        labels = np.array(Image.open(path)).astype(int)
        semantic = np.array(Image.open(folder / "semantic" / path.name)).astype(int)
        truth = GroundTruth(labels, semantic, ignore_label=255)
        truths.append(truth)
        masks = [np.roll(labels == i, rng.integers(-6, 7, 2), (0, 1)) for i in truth.ids]
        masks += [np.roll(labels == i, rng.integers(-2, 3, 2), (0, 1)) for i in truth.ids[::2]]
        if truth.void is not None and truth.void.any():
            masks.append(np.roll(truth.void, 3, axis=1))
        classes = np.concatenate([truth.classes, truth.classes[::2], truth.classes[:1]])
        classes = np.where(rng.random(len(classes)) < 0.1, 1, classes)[: len(masks)]
        scores = rng.random(len(masks)).round(1)
        masks = np.array(masks, bool).reshape(-1, *labels.shape)
        predictions.append(Detections(masks, scores, classes))
    return truths, predictions


def stack(masks):
    """The masks as a boolean stack (n, H, W)."""
    return masks.masks if masks.masks.ndim == 3 else masks.masks == masks.ids[:, None, None]


def coco_evaluation(truths, predictions, *, use_classes=True, max_detections=100, area_range=None):
    """Evaluate by pycocotools, void pixels being a crowd of each class.

    Returns:
        The arrays `precision` (thresholds, recalls, classes) and `recall` (thresholds, classes) of
        COCOeval, -1 where a class has no true mask, and the classes.
    """
    coco = pytest.importorskip("pycocotools.coco")
    mask = pytest.importorskip("pycocotools.mask")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")

    class Evaluation(cocoeval.COCOeval):
        def _prepare(self):  # pycocotools overwrites the flag of ignored masks by that of crowds
            super()._prepare()
            for annotations in self._gts.values():
                for annotation in annotations:
                    annotation["ignore"] |= annotation["not_asked"]

    def annotation(number, image, pixels, label, **more):
        encoded = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        return {
            "id": number,
            "image_id": image,
            "category_id": int(label) if use_classes else 1,
            "segmentation": encoded,
            "area": float(pixels.sum()),
            "iscrowd": 0,
            **more,
        }

    labels = [set(m.classes.tolist()) for m in truths + predictions]
    labels = sorted(set().union(*labels)) if use_classes else [1]
    true, pred = [], []
    for image, (truth, found) in enumerate(zip(truths, predictions)):
        flags = zip(stack(truth), truth.classes, truth.crowd, truth.ignored)
        for pixels, label, crowd, ignored in flags:
            flag = {"iscrowd": int(crowd), "not_asked": int(ignored)}
            true.append(annotation(len(true) + 1, image, pixels, label, **flag))
        if truth.void is not None:
            for label in labels:
                flag = {"iscrowd": 1, "not_asked": 0}
                true.append(annotation(len(true) + 1, image, truth.void, label, **flag))
        for pixels, label, score in zip(stack(found), found.classes, found.scores):
            pred.append(annotation(len(pred) + 1, image, pixels, label, score=float(score)))

    both = []
    with contextlib.redirect_stdout(io.StringIO()):
        for annotations in (true, pred):
            data = coco.COCO()
            data.dataset = {
                "images": [
                    {"id": i, "height": int(t.shape[0]), "width": int(t.shape[1])}
                    for i, t in enumerate(truths)
                ],
                "categories": [{"id": label} for label in labels],
                "annotations": annotations,
            }
            data.createIndex()
            both.append(data)
        evaluation = Evaluation(*both, "segm")
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng = [list(area_range or (0, 1e10))]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    return precision[..., 0, 0], recall[..., 0, 0], labels
