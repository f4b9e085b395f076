"""`keras-rpe evaluate`: how well a model does on images that people annotated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from keras_rpe.cli.evaluate_boundaries import evaluate_boundaries
from keras_rpe.cli.evaluate_instances import evaluate_instances
from keras_rpe.cli.model_option import (
    ModelOption,
    PresetOption,
    check_model_choice,
    load_detector,
    load_segmenter,
    load_task,
    other_task,
)
from keras_rpe.written_file import write_file

if TYPE_CHECKING:
    from keras_rpe.models import Task


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of images and label images; for boundaries, that of BSDS500."),
    ],
    preset: PresetOption = None,
    model: ModelOption = None,
    task: Annotated[
        Literal["instances", "boundaries"] | None,
        typer.Option(help="What to evaluate. Default: the task of the model."),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(help="A text file with one image name, without ending, a line: only these."),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Instances: glob of the images in the folder. Default: images/*."),
    ] = None,
    instances: Annotated[
        str | None,
        typer.Option(help="Instances: glob of the label images there. Default: instances/*."),
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
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the figures, at all thresholds, into this file."),
    ] = None,
) -> None:
    """Compare a model with what people drew into images.

    Instances: every image is segmented whole, and the counts of all images
    are pooled. Boundaries: the benchmark of BSDS500 on thinned maps, with
    its best F-measure at one threshold for all images (ODS) and at one for
    each (OIS), and its average precision (AP).
    """
    check_model_choice(preset, model)
    if json_file is not None and (not json_file.parent.is_dir() or json_file.is_dir()):
        raise ValueError(f"--json needs a file in an existing folder. Received: {json_file}")
    load = {None: load_task, "instances": load_segmenter, "boundaries": load_detector}[task]
    network: Task = load(preset, model)
    from keras_rpe.models import BoundaryDetector, InstanceSegmenter

    if isinstance(network, BoundaryDetector):
        _check_not_given("boundaries", {"--images": images, "--instances": instances})
        figures = evaluate_boundaries(network, folder, names, split or "val", threshold)
    elif not isinstance(network, InstanceSegmenter):
        raise other_task(network, preset, model, "an InstanceSegmenter or a BoundaryDetector")
    else:
        _check_not_given("instances", {"--split": split})
        globs = images or "images/*", instances or "instances/*"
        figures = evaluate_instances(network, folder, names, *globs, threshold)
    if json_file is not None:
        write_file(json_file, json.dumps(figures, indent=2) + "\n")


def _check_not_given(task: str, options: dict[str, str | None]) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name} does not go with a model for {task}. Received: {value}")
