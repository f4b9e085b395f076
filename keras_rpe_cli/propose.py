"""The command `propose`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_rpe_cli.image_table import ImageTable, table_text
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

    from keras_rpe.models import ObjectProposer

_BOX = ("top", "left", "bottom", "right")


def propose(
    inputs: InputsArgument,
    out: OutOption,
    preset: PresetOption = None,
    model: ModelOption = None,
    top: Annotated[int, typer.Option(min=1, help="Proposals of an image, at most.")] = 10,
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Also draw the masks over the image.")
    ] = True,
) -> None:
    """Propose masks of objects of any class, ranked by how likely each is one.

    For NAME.jpg, writes OUT/NAME_masks.json, masks and scores as COCO's run
    lengths, and OUT/NAME_overlay.png, better masks over worse ones, and
    lists the proposals of all images in OUT/proposals.csv.
    """
    check_model_choice(preset, model)
    import_keras_rpe()
    from keras_rpe.data import write_coco, write_image
    from keras_rpe.optional_import import optional_import
    from keras_rpe.visualization import overlay_instances

    optional_import("pycocotools.mask", "coco")
    table = ImageTable(out / "proposals.csv", {"image", "proposal", "score", *_BOX})

    def process(
        network: ObjectProposer, file: Path, name: str, image: np.ndarray
    ) -> Callable[[], str]:
        found = network.predict_proposals(image, top)

        def write() -> str:
            target = partial(write_coco, found=found, image_name=file.name)
            files: dict[Path, Callable[[Path], object]] = {out / f"{name}_masks.json": target}
            if overlay:
                picture = overlay_instances(image, found.ranks)
                files[out / f"{name}_overlay.png"] = partial(write_image, rgb=picture)
            write_all(files)
            rows = zip(found.scores, found.areas, found.boxes)
            table.rows[file.name] = [
                {
                    "image": file.name,
                    "proposal": str(number),
                    "score": table_text(score),
                    "area_px": table_text(area),
                    **dict(zip(_BOX, map(table_text, box))),
                }
                for number, (score, area, box) in enumerate(rows, start=1)
            ]
            return counted(len(found), "proposal")

        return write

    process_images(
        inputs,
        out,
        ["_masks.json", "_overlay.png"],
        partial(load_task, preset, model, "ObjectProposer"),
        process,
        lambda done: f"proposals for {counted(done, 'image')}, written to {out}",
        [table],
    )
