"""Measure masks with classes, proposals and class maps on 500 scenes of unseen digits.

    python benchmarks/digits_tasks.py --source mnist.npz --instances digits_instances \
        --proposals digits --semantic "with=runs/s0/preset,runs/s1/preset" \
        "without=runs/w0/preset,runs/w1/preset"

- `--instances`: presets of `examples/digits.py --classes`. mAP is the mean average precision of
  masks with classes, as COCO computes it, at IoU 0.5 and over .50, .55, …, .95.
- `--proposals`: presets of `examples/digits.py`. An `ObjectProposer` gets their weights, and its
  scores are calibrated on 100 scenes of training digits. AR@k is the average recall of the k best
  proposals over the same IoU thresholds.
- `--semantic`: presets of `examples/digits_semantic.py`. Presets after one name, separated by
  commas, differ only in their seed. mIoU is over the background and the classes, with all pixels
  pooled. With two names, the difference between the first and the second is printed for each seed.
  `--gray` uses scenes without colors, which show the class.
"""

import argparse
import os
from typing import Any

import numpy as np
from digits import flat, named_presets, print_rows

CALIBRATION = 100  # Scenes of training digits.
NUMBERS = (1, 10, 60)

Scenes = list[tuple[np.ndarray, dict[str, np.ndarray]]]


def scenes(options: argparse.Namespace, split: str, count: int, seed: int) -> Scenes:
    """Scenes of any digits, as `examples/digits.py` evaluates them."""
    from keras_rpe.data import digits

    return flat(
        digits(
            options.source, split, num_scenes=count, classes=True, same_class_share=0.0, seed=seed
        )
    )


def print_instances(presets: list[str], test: Scenes) -> None:
    """Average precision of masks with classes."""
    from keras_rpe.metrics import GroundTruth, MaskAveragePrecision
    from keras_rpe.models import InstanceSegmenter

    rows = {}
    for preset in presets:
        model, precision = InstanceSegmenter.from_preset(preset), MaskAveragePrecision()
        for image, truth in test:
            numbers = np.unique(truth["instances"], return_inverse=True)[1]
            labels = numbers.reshape(truth["instances"].shape)
            labels += int(truth["instances"].min() > 0)  # A scene without background.
            precision.update_state(
                GroundTruth(labels, classes=truth["classes"]), model.predict_instances(image)
            )
        found = precision.result()
        rows[preset] = [[found["AP50"], found["AP75"], found["AP"]]]
    print_rows(f"Masks with classes, {len(test)} scenes", rows, ["mAP50", "mAP75", "mAP"])


def as_proposer(preset: str) -> Any:
    """An `ObjectProposer` with the network and the weights of a segmenter of one class."""
    import keras

    from keras_rpe.models import InstanceSegmenter, ObjectProposer
    from keras_rpe.models.task import transfer_weights

    segmenter = InstanceSegmenter.from_preset(preset)
    given = segmenter.get_config()
    shared = (
        "embedding_dim", "iterations", "window_size", "inference_window_size", "margin",
        "neighborhood", "coordinates", "position_periods", "output_stride", "embed_background",
        "fusion_filters", "percentiles",
    )  # fmt: skip
    proposer = ObjectProposer(
        keras.saving.deserialize_keras_object(given["backbone"]),
        **{name: given[name] for name in shared},
    )
    # Only the network: the ranking of proposals is new.
    report = transfer_weights(segmenter.pixel_network, proposer.pixel_network)
    if report.unmatched_weights:
        raise ValueError(f"{preset} must be of one class, as proposals are. Received: {report}")
    return proposer


def print_proposals(presets: list[str], options: argparse.Namespace, test: Scenes) -> None:
    """Average recall of ranked proposals."""
    from keras_rpe.metrics import AverageRecall

    rows = {}
    calibration = scenes(options, "train", CALIBRATION, seed=10**6)
    for preset in presets:
        model, recall = as_proposer(preset), AverageRecall(NUMBERS)
        model.calibrate(
            [image for image, _ in calibration], [truth["instances"] for _, truth in calibration]
        )
        for image, truth in test:
            recall.update_state(
                truth["instances"], model.predict_proposals(image, NUMBERS[-1]).masks
            )
        rows[preset] = [list(recall.result().values())]
        columns = list(recall.result())
    print_rows(f"Proposals, {len(test)} scenes", rows, columns)


def print_semantic(models: list[tuple[str, list[str]]], gray: bool, test: Scenes) -> None:
    """Mean IoU of class maps."""
    from keras_rpe.metrics import SemanticMeanIoU
    from keras_rpe.models import SemanticSegmenter

    values: dict[str, list[float]] = {}
    for name, presets in models:
        for preset in presets:
            model, metric = SemanticSegmenter.from_preset(preset), SemanticMeanIoU(num_classes=11)
            for image, truth in test:
                # Each pixel becomes as bright as its brightest color.
                pixels = image.max(axis=-1, keepdims=True).repeat(3, axis=-1) if gray else image
                metric.update_state(truth["classes"], model.predict_classes(pixels).classes)
            values.setdefault(name, []).append(float(metric.result()))
    print_rows(
        f"Class maps, {len(test)} scenes{' in gray' if gray else ''}",
        {name: [[value] for value in row] for name, row in values.items()},
        ["mIoU"],
    )
    if len(values) == 2:
        (first, ours), (second, others) = values.items()
        differences = ", ".join(f"{a - b:+.4f}" for a, b in zip(ours, others))
        print(f"{first} - {second}, seed by seed: {differences}")


def main() -> None:
    """Print the requested tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", help="an .npz file; default: Keras downloads MNIST")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--instances", nargs="*", default=[], metavar="PRESET")
    parser.add_argument("--proposals", nargs="*", default=[], metavar="PRESET")
    parser.add_argument(
        "--semantic", type=named_presets, nargs="*", default=[], metavar="NAME=PRESET,PRESET"
    )
    parser.add_argument("--gray", action="store_true", help="class maps of scenes without colors")
    options = parser.parse_args()
    if options.scenes < 1:
        parser.error(f"--scenes needs a number from 1. Received: {options.scenes}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    test = scenes(options, "test", options.scenes, seed=0)
    if options.instances:
        print_instances(options.instances, test)
    if options.proposals:
        print_proposals(options.proposals, options, test)
    if options.semantic:
        print_semantic(options.semantic, options.gray, test)


if __name__ == "__main__":
    main()
