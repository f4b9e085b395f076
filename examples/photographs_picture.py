"""Draw what the presets for photographs find in photographs that come with scikit-image.

    python examples/photographs_picture.py --out photographs.png

Columns: the photograph, the best proposals of `objects`, and the classes of `voc_classes`.
"""

import argparse
from pathlib import Path

import numpy as np
from skimage import data
from skimage.transform import resize

from keras_rpe.data import write_image
from keras_rpe.models import ObjectProposer, SemanticSegmenter
from keras_rpe.visualization import overlay_instances

PHOTOGRAPHS = (
    data.astronaut,
    data.chelsea,
    data.coffee,
    lambda: data.stereo_motorcycle()[0],
)
LONGER_SIDE, TILE, GAP = 400, 240, 6  # In pixels: what the models see, and what is shown.
PROPOSALS = 3


def main() -> None:
    """Draw a row for each photograph."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("photographs.png"))
    options = parser.parse_args()
    proposer = ObjectProposer.from_preset("objects")
    classifier = SemanticSegmenter.from_preset("voc_classes")
    rows = []
    for photograph in PHOTOGRAPHS:
        image = photograph()
        sides = [round(n * LONGER_SIDE / max(image.shape)) for n in image.shape[:2]]
        image = resize(image, sides, preserve_range=True, anti_aliasing=True).astype("uint8")
        found = [
            proposer.predict_proposals(image, PROPOSALS).ranks,
            classifier.predict_classes(image).classes,
        ]
        pictures = [image, *(overlay_instances(image, labels) for labels in found)]
        shown = (TILE * image.shape[0] // image.shape[1], TILE)
        tiles = [
            np.pad(
                resize(one, shown, preserve_range=True, anti_aliasing=True).astype("uint8"),
                ((0, GAP), (0, GAP), (0, 0)),
                constant_values=255,
            )
            for one in pictures
        ]
        rows.append(np.concatenate(tiles, axis=1))
    write_image(options.out, np.concatenate(rows)[:-GAP, :-GAP])


if __name__ == "__main__":
    main()
