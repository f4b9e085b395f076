"""The command `classes`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_rpe_cli.image_table import ImageTable
from keras_rpe_cli.options import (
    InputsArgument,
    ModelOption,
    OutOption,
    PresetOption,
    check_model_choice,
    load_task,
    process_images,
    write_all,
)
from keras_rpe_cli.report import counted, import_keras_rpe

if TYPE_CHECKING:
    import numpy as np

    from keras_rpe.models import SemanticSegmenter


def classes(
    inputs: InputsArgument,
    out: OutOption,
    preset: PresetOption = None,
    model: ModelOption = None,
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Also draw the classes over the image.")
    ] = True,
) -> None:
    """Tell the class of every pixel.

    For NAME.jpg, writes OUT/NAME_classes.png, the number of the class of each
    pixel, 0 for the background, and OUT/NAME_overlay.png, and lists how many
    pixels each class has in OUT/classes.csv.
    """
    check_model_choice(preset, model)
    import_keras_rpe()
    from keras_rpe.data import write_image, write_labels
    from keras_rpe.visualization import overlay_instances

    table = ImageTable(out / "classes.csv", {"image", "class", "area_px"})

    def process(
        network: SemanticSegmenter, file: Path, name: str, image: np.ndarray
    ) -> Callable[[], str]:
        found = network.predict_classes(image)

        def write() -> str:
            target = partial(write_labels, labels=found.classes)
            files: dict[Path, Callable[[Path], object]] = {out / f"{name}_classes.png": target}
            if overlay:
                picture = overlay_instances(image, found.classes)
                files[out / f"{name}_overlay.png"] = partial(write_image, rgb=picture)
            write_all(files)
            table.rows[file.name] = [
                {"image": file.name, "class": network.class_name(label), "area_px": str(area)}
                for label, area in found.areas.items()
            ]
            largest_first = sorted(found.areas, key=lambda label: -found.areas[label])
            present = [network.class_name(label) for label in largest_first if label]
            return f"classes: {', '.join(present)}" if present else "only background"

        return write

    process_images(
        inputs,
        out,
        ["_classes.png", "_overlay.png"],
        partial(load_task, preset, model, "SemanticSegmenter"),
        process,
        lambda done: f"classes of {counted(done, 'image')}, written to {out}",
        [table],
    )
