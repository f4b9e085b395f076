"""The command `evaluate`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from keras_rpe_cli.boundaries import detect
from keras_rpe_cli.options import (
    DiameterOption,
    ModelOption,
    PresetOption,
    ScalesOption,
    check_model_choice,
    load_task,
    parsed_diameter,
    parsed_scales,
    read_names,
    segment_image,
)
from keras_rpe_cli.report import print_device, print_table, progress_bar

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.data import BoundaryPair, LabelledImages
    from keras_rpe.metrics import Matching
    from keras_rpe.models import (
        BoundaryDetector,
        InstanceSegmenter,
        ObjectProposer,
        SemanticSegmenter,
    )

_CLASSES = {
    "instances": "InstanceSegmenter",
    "proposals": "ObjectProposer",
    "boundaries": "BoundaryDetector",
    "classes": "SemanticSegmenter",
}
_NOT_FOR = {
    "instances": ["--split", "--scales"],
    "proposals": ["--split", "--diameter", "--threshold", "--classes", "--scales"],
    "boundaries": ["--images", "--instances", "--ignore-label", "--diameter", "--classes"],
    "classes": ["--split", "--diameter", "--threshold", "--instances", "--scales"],
}
_PROPOSALS = (1, 10, 60)
_IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)
_CLASS_IOUS = (0.5, 0.7)
_CLASS_MAPS = "semantic/*"
_FIGURES = (
    *("average_precision", "precision", "recall", "f1", "mean_matched_iou", "panoptic_quality"),
    *("tp", "fp", "fn"),
)
_NAMES = (
    *("ods", "ods_threshold", "ods_precision", "ods_recall"),
    *("ois", "ois_precision", "ois_recall", "ap"),
)
_SHOWN = 20


def evaluate_boundaries(
    network: BoundaryDetector,
    folder: Path,
    names: Path | None,
    split: str,
    threshold: Sequence[float] | None,
    scales: Sequence[float],
) -> dict[str, Any]:
    """Detect the boundaries in a part of BSDS500 and print the figures of its benchmark."""
    from keras_rpe.data import find_boundary_pairs, read_image
    from keras_rpe.data.labelled_images import chosen
    from keras_rpe.metrics import boundary_benchmark
    from keras_rpe.metrics.boundaries import check_boundary_thresholds

    cuts = check_boundary_thresholds(sorted(set(threshold)) if threshold else 99)
    found = {pair.name: pair for pair in find_boundary_pairs(folder, split)}
    pairs = list(chosen(found, read_names(names)).values())
    annotators = _checked(pairs)
    figures = boundary_benchmark(
        (detect(network, read_image(pair.image), scales).thinned for pair in pairs),
        _Drawn(pairs),
        thresholds=cuts,
        progress=True,
    )
    ods = (figures.ods, figures.ods_threshold, figures.ods_precision, figures.ods_recall)
    ois = (figures.ois_precision, figures.ois_recall)
    rows = [
        ["ODS", *(f"{value:.3f}" for value in ods)],
        ["OIS", f"{figures.ois:.3f}", "each its own", *(f"{value:.3f}" for value in ois)],
        ["AP", f"{figures.ap:.3f}", "", "", ""],
    ]
    columns = ["figure", "value", "threshold", "precision", "recall"]
    print_table(f"{folder}, {split}", columns, rows)
    typer.echo(f"images {len(pairs)}, annotations {annotators}, thresholds {len(cuts)}")
    curve = zip(figures.thresholds, figures.precision, figures.recall)
    return {
        "images": len(pairs),
        "annotations": annotators,
        **{name: getattr(figures, name) for name in _NAMES},
        "thresholds": [
            {"threshold": float(t), "precision": float(p), "recall": float(r)} for t, p, r in curve
        ],
    }


def _checked(pairs: Sequence[BoundaryPair]) -> int:
    """Read all files once, as the benchmark takes long to come to the last; count annotations."""
    from keras_rpe.data import ImageFileError, LabelFolderError
    from keras_rpe.data.bsds import read_boundary_pair

    count, reasons = 0, []
    for pair in pairs:
        try:
            count += len(read_boundary_pair(pair)[1])
        except (ImageFileError, OSError) as error:
            reasons.append(str(error).removesuffix("."))
    if reasons:
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        raise LabelFolderError(
            f"{len(reasons)} of {len(pairs)} images cannot be used: "
            f"{'; '.join(reasons[:_SHOWN])}{more}."
        )
    return count


class _Drawn:
    """The maps of the annotators of each image, read in turn; the length is for the progress."""

    def __init__(self, pairs: Sequence[BoundaryPair]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        from keras_rpe.data import read_boundaries

        for pair in self._pairs:
            yield [annotation.boundaries for annotation in read_boundaries(pair.boundaries)]


def evaluate_instances(
    network: InstanceSegmenter,
    folder: Path,
    found: LabelledImages,
    threshold: Sequence[float] | None,
    diameter: float | str,
) -> dict[str, Any]:
    """Segment the images of a folder and print the figures."""
    from keras_rpe.metrics.matching import check_thresholds

    thresholds = sorted(set(check_thresholds(threshold or _IOUS)))
    matchings, seconds = match_images(network, found, thresholds, diameter)
    seconds_per_image = seconds / len(found)
    columns = ["IoU from", "AP", "precision", "recall", "F1", "mean IoU", "PQ", "TP", "FP", "FN"]
    figures = [
        {"iou": m.threshold, **{name: getattr(m, name) for name in _FIGURES}} for m in matchings
    ]
    rows = [
        [f"{iou:g}", *(str(f) if isinstance(f, int) else f"{f:.3f}" for f in others)]
        for iou, *others in (row.values() for row in figures)
    ]
    print_table(str(folder), columns, rows)
    first = matchings[0]
    typer.echo(
        f"images {len(found)}, instances {first.n_true}, predicted {first.n_pred}, "
        f"{seconds_per_image:.2f} s an image"
    )
    return {
        "images": len(found),
        "instances": first.n_true,
        "predicted": first.n_pred,
        "seconds_per_image": seconds_per_image,
        "thresholds": figures,
    }


def match_images(
    network: InstanceSegmenter,
    found: LabelledImages,
    thresholds: list[float],
    diameter: float | str = "auto",
) -> tuple[list[Matching], float]:
    """Segment images whole and compare them with their labels.

    Gives the matching of all images pooled for each threshold, and the seconds of segmenting.
    """
    import numpy as np

    from keras_rpe.data import VOID
    from keras_rpe.metrics import matching

    # The first image compiles the graph, which does not count as the time of an image.
    network.predict_instances(np.zeros((32, 32)))
    pooled: list[list[Matching]] = []
    seconds = 0.0
    with progress_bar("evaluating", len(found)) as advance:
        for name, (image, labels, _) in zip(found.names, found):
            start = time.perf_counter()
            predicted = segment_image(network, image, name, diameter).labels
            seconds += time.perf_counter() - start
            pooled.append(matching(labels, predicted, thresholds, VOID))
            advance()
    return [reduce(add, column) for column in zip(*pooled)], seconds


def evaluate_instances_of_classes(
    network: InstanceSegmenter,
    folder: Path,
    found: LabelledImages,
    threshold: Sequence[float] | None,
    diameter: float | str,
) -> dict[str, Any]:
    """Segment the images of a folder and print the average precision of each class (mAP^r)."""
    from keras_rpe.data import VOID
    from keras_rpe.metrics import GroundTruth, MaskAveragePrecision

    precision = MaskAveragePrecision("voc", sorted(set(threshold or _CLASS_IOUS)))
    with progress_bar("evaluating", len(found)) as advance:
        for name, (image, labels, classes) in zip(found.names, found):
            truth = GroundTruth(labels, classes, ignore_label=VOID)
            precision.update_state(truth, segment_image(network, image, name, diameter))
            advance()
    figures = precision.result()
    by_class = {network.class_name(label): row for label, row in precision.class_results().items()}
    intervals = precision.interval()
    names = [name for name in figures if name != "AP"]
    rows = [[label, *(f"{row[n]:.3f}" for n in names)] for label, row in by_class.items()]
    rows.append(["mean", *(f"{figures[name]:.3f}" for name in names)])
    ends = ("{:.3f} to {:.3f}".format(*intervals[name]) for name in names)
    rows.append(["95 % of draws of the images", *ends])
    columns = ["class", *(f"AP at IoU {iou:g}" for iou in precision.thresholds)]
    print_table(str(folder), columns, rows)
    typer.echo(f"images {len(found)}")
    return {
        "images": len(found),
        "mean": figures,
        "intervals": intervals,
        "classes": by_class,
    }


def evaluate_classes(
    network: SemanticSegmenter, folder: Path, found: LabelledImages
) -> dict[str, Any]:
    """Classify the pixels of a folder's images and print the IoU of each class and their mean."""
    from keras_rpe.data import VOID
    from keras_rpe.metrics import class_iou

    def predictions() -> Iterator[np.ndarray]:
        with progress_bar("evaluating", len(found)) as advance:
            for image, _, _ in found:
                yield network.predict_classes(image).classes
                advance()

    truths = (one.instances for one in found)  # The class maps were read as if they were.
    by_class = class_iou(truths, predictions(), network.num_classes + 1, VOID)
    mean = sum(by_class.values()) / len(by_class)
    classes = {network.class_name(label): iou for label, iou in by_class.items()}
    rows = [[label, f"{iou:.3f}"] for label, iou in {**classes, "mean": mean}.items()]
    print_table(str(folder), ["class", "IoU"], rows)
    typer.echo(f"images {len(found)}")
    return {"images": len(found), "mean_iou": mean, "classes": classes}


def evaluate_proposals(
    network: ObjectProposer,
    folder: Path,
    found: LabelledImages,
) -> dict[str, Any]:
    """Propose masks for the images of a folder and print their recall."""
    from keras_rpe.data import VOID
    from keras_rpe.metrics import AverageRecall, GroundTruth

    recall = AverageRecall(_PROPOSALS, exclude_void=True)
    count = 0
    with progress_bar("evaluating", len(found)) as advance:
        for image, labels, _ in found:
            recall.update_state(
                GroundTruth(labels, ignore_label=VOID),
                network.predict_proposals(image, _PROPOSALS[-1]).masks,
            )
            count += len(set(labels[labels > 0].tolist()))
            advance()
    figures = recall.result()
    rows = [
        [str(k), *(f"{figures[f'{name}@{k}']:.3f}" for name in ("AR", "AR50"))] for k in _PROPOSALS
    ]
    print_table(str(folder), ["best", "average recall", "recall at IoU 0.5"], rows)
    typer.echo(f"images {len(found)}, objects {count}")
    return {"images": len(found), "objects": count, **figures}


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of images and label images; for boundaries, that of BSDS500."),
    ],
    preset: PresetOption = None,
    model: ModelOption = None,
    task: Annotated[
        Literal["instances", "proposals", "boundaries", "classes"] | None,
        typer.Option(help="What to evaluate. Default: the task of the model."),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(help="A text file with one image name, without ending, a line: only these."),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Not for boundaries: glob of the images there. Default: images/*."),
    ] = None,
    instances: Annotated[
        str | None,
        typer.Option(help="The same for the label images. Default: instances/*."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="The same for images of the class of each pixel. For classes, the default is "
            f"{_CLASS_MAPS}; for instances, each class has a figure of its own with it."
        ),
    ] = None,
    ignore_label: Annotated[
        int | None,
        typer.Option(min=1, help="Label of void pixels in the label images, such as 255."),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="Boundaries: part of the folder, images/SPLIT. Default: val."),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="Smallest IoU of a match, or strength of a boundary; repeat it for several. "
            "Default: 0.5, 0.6 … 0.9 for instances, 0.01, 0.02 … 0.99 for boundaries."
        ),
    ] = None,
    diameter: DiameterOption = "auto",
    scales: ScalesOption = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the figures, at all thresholds, into this file."),
    ] = None,
) -> None:
    """Compare a model with what people drew into images.

    Instances: every image is segmented whole, and the counts of all images
    are pooled. Proposals: the share of all objects that the best 1, 10 and
    60 proposals of an image find, at IoU 0.5, and as a mean over 0.50, 0.55,
    …, 0.95. Boundaries: the benchmark of BSDS500 on thinned maps, with
    its best F-measure at one threshold for all images (ODS) and at one for
    each (OIS), and its average precision (AP). Classes: the intersection over
    union of each class, the pixels of all images pooled, and their mean.

    Instances with --classes: the average precision of each class by the score
    of the masks, their mean (mAP^r), and its interval over draws of the images.
    """
    check_model_choice(preset, model)
    if json_file is not None and (not json_file.parent.is_dir() or json_file.is_dir()):
        raise ValueError(f"--json needs a file in an existing folder. Received: {json_file}")
    pixels, factors = parsed_diameter(diameter), parsed_scales(scales)
    given = {
        "--images": images,
        "--instances": instances,
        "--classes": classes,
        "--ignore-label": ignore_label,
        "--diameter": None if pixels == "auto" else diameter,
        "--split": split,
        "--threshold": threshold or None,
        "--scales": scales,
    }
    kinds = [_CLASSES[task]] if task else list(_CLASSES.values())
    network = load_task(preset, model, *kinds)
    print_device()
    kind = next(name for name, cls in _CLASSES.items() if cls == type(network).__name__)
    for option in _NOT_FOR[kind]:
        if given[option] is not None:
            raise ValueError(
                f"{option} does not go with a model for {kind}. Received: {given[option]}"
            )
    if kind == "boundaries":
        figures = evaluate_boundaries(network, folder, names, split or "val", threshold, factors)
    else:
        from keras_rpe.data import label_folder

        by_class = kind == "instances" and classes is not None
        found = label_folder(
            folder,
            images=images or "images/*",
            instances=(classes or _CLASS_MAPS) if kind == "classes" else instances or "instances/*",
            classes=classes if by_class else None,
            names=read_names(names),
            ignore_label=ignore_label,
        )
        if kind == "proposals":
            figures = evaluate_proposals(network, folder, found)
        elif kind == "classes":
            figures = evaluate_classes(network, folder, found)
        elif by_class:
            figures = evaluate_instances_of_classes(network, folder, found, threshold, pixels)
        else:
            figures = evaluate_instances(network, folder, found, threshold, pixels)
    if json_file is not None:
        from keras_rpe.written_file import write_file

        write_file(json_file, json.dumps(figures, indent=2) + "\n")
