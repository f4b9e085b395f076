"""`keras-rpe demo`: one image, to see that all works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_rpe.cli.demo_image import demo_image
from keras_rpe.cli.model_option import load_segmenter, segment_image
from keras_rpe.cli.output_folder import output_folder
from keras_rpe.cli.report import counted


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("rpe_demo"),
    preset: Annotated[str, typer.Option(help="Name of a preset, or its folder.")] = "nuclei",
) -> None:
    """Segment a microscope image that is already on this machine.

    The image, the nuclear stain of a section of colon, comes with
    scikit-image. Writes it, its labels, the instances drawn over it, and its
    embeddings before and after each loop of mean shift.
    """
    with output_folder(out):
        network = load_segmenter(preset, None)

        from skimage.color import gray2rgb

        from keras_rpe.data import write_image, write_labels
        from keras_rpe.visualization import embedding_loops, overlay_instances

        image = demo_image()
        result = segment_image(network, image, "image")
        pictures = {
            "image.png": gray2rgb(image),
            "overlay.png": overlay_instances(image, result.labels),
            "loops.png": embedding_loops(network, image),
        }
        paths = {"labels.png": out / "labels.png"} | {name: out / name for name in pictures}
        try:
            write_labels(paths["labels.png"], result.labels)
            for name, picture in pictures.items():
                write_image(paths[name], picture)
        except BaseException:
            for path in paths.values():
                path.unlink(missing_ok=True)
            raise
    typer.echo(counted(len(result), "instance"))
    for path in paths.values():
        typer.echo(path)
