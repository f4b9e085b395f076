"""The command `demo`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_rpe_cli.options import load_task, output_folder, segment_image, write_all
from keras_rpe_cli.report import counted, print_device

if TYPE_CHECKING:
    import numpy as np


def demo_image() -> np.ndarray:
    """Give the nuclear stain of a section of colon, an image that comes with scikit-image.

    Returns:
        uint8 `(512, 512)`.
    """
    import numpy as np
    from skimage import data
    from skimage.color import rgb2hed
    from skimage.filters import gaussian
    from skimage.util import img_as_ubyte

    # Of the two dyes in the section, haematoxylin is the one that binds to nuclei. Separating the
    # dyes enlarges the noise.
    stain = gaussian(rgb2hed(data.immunohistochemistry())[..., 0], 2)
    return img_as_ubyte(np.clip(stain / stain.max(), 0, 1))


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
        network = load_task(preset, None, "InstanceSegmenter")
        print_device()

        from skimage.color import gray2rgb

        from keras_rpe.data import write_image, write_labels
        from keras_rpe.visualization import embedding_loops, overlay_instances

        image = demo_image()
        result = segment_image(network, image, "image")
        files = {
            out / "labels.png": partial(write_labels, labels=result.labels),
            out / "image.png": partial(write_image, rgb=gray2rgb(image)),
            out / "overlay.png": partial(write_image, rgb=overlay_instances(image, result.labels)),
            out / "loops.png": partial(write_image, rgb=embedding_loops(network, image)),
        }
        write_all(files)
    typer.echo(counted(len(result), "instance"))
    for path in files:
        typer.echo(path)
