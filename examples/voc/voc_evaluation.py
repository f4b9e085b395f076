"""Choose the last settings of a trained model, and measure it on VOC's val."""

from collections.abc import Iterable
from typing import Any

from keras_rpe.data import VOID, LabelledImages, LabelMaps
from keras_rpe.metrics import AverageRecall, GroundTruth, MaskAveragePrecision, SemanticMeanIoU
from keras_rpe.models import InstanceSegmenter, ObjectProposer, SemanticSegmenter

PROPOSALS = (10, 60)  # Per image, for all its objects.


def adapt(model: Any, examples: LabelledImages | None) -> None:
    """Calibrate the ranking of proposals, or choose the thresholds of instances.

    Args:
        model: The trained model; a `SemanticSegmenter` stays as it is.
        examples: Images that are not used for training or for figures, or `None`.
    """
    if isinstance(model, SemanticSegmenter) or not examples:
        return
    maps = list(examples)
    images = [one.image for one in maps]
    if isinstance(model, InstanceSegmenter):
        model.optimize_thresholds(images, [one.instances for one in maps])
        return
    try:
        model.calibrate(images, [one.instances for one in maps])
    except ValueError as error:  # Nothing is proposed after a few steps.
        print(f"The ranking stays as it was: {error}")


def evaluate(model: Any, examples: Iterable[LabelMaps]) -> dict[str, float]:
    """Measure a model on images of VOC, without their void pixels.

    Args:
        model: The model.
        examples: Images that nothing else has used.

    Returns:
        Figures in [0, 1] by name.
    """
    if isinstance(model, ObjectProposer):
        return _evaluate_proposals(model, examples)
    if isinstance(model, InstanceSegmenter):
        return _evaluate_instances(model, examples)
    return _evaluate_classes(model, examples)


def _truth(maps: LabelMaps) -> GroundTruth:
    return GroundTruth(maps.instances, maps.classes, ignore_label=VOID)


def _evaluate_proposals(model: ObjectProposer, images: Iterable[LabelMaps]) -> dict[str, float]:
    recall = AverageRecall(PROPOSALS, exclude_void=True)
    for maps in images:
        recall.update_state(_truth(maps), model.predict_proposals(maps.image, PROPOSALS[-1]))
    found = recall.result()
    average = {f"average recall, {k} proposals": found[f"AR@{k}"] for k in PROPOSALS}
    return average | {f"recall at IoU 0.5, {k} proposals": found[f"AR50@{k}"] for k in PROPOSALS}


def _evaluate_instances(model: InstanceSegmenter, images: Iterable[LabelMaps]) -> dict[str, float]:
    precision = MaskAveragePrecision("voc")
    for maps in images:
        precision.update_state(_truth(maps), model.predict_instances(maps.image))
    found = precision.result()
    return {f"mAP^r at IoU 0.{k // 10}": found[f"AP{k}"] for k in (50, 70)}


def _evaluate_classes(model: SemanticSegmenter, images: Iterable[LabelMaps]) -> dict[str, float]:
    iou = SemanticMeanIoU(model.num_classes + 1, ignore_label=VOID)
    for maps in images:
        iou.update_state(maps.classes[None], model.predict_classes(maps.image).classes[None])
    return {"mean IoU of the background and the classes": float(iou.result())}
