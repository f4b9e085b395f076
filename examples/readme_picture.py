"""Draw the picture of README.md: images and what the bundled presets find in them.

    python examples/readme_picture.py DSB2018 --out demo.png

DSB2018 is the folder of the training images of the 2018 Data Science Bowl (BBBC038v1, CC0), with
`images/`. The image of nuclei was held out when the preset was trained. The photographs come with
scikit-image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from skimage import data
from skimage.transform import resize

import keras_rpe
from keras_rpe.visualization import embedding_colors, overlay_instances

NUCLEI = "bb8ebf465c968a5f6f715de5d9e2e664afd1bcaa533e0e3352ecea1cc5b6fb0d"
HEIGHT, WIDTH, GAP = 240, 320, 6


def nuclei(folder: Path) -> list[np.ndarray]:
    """A fluorescence image, its instances, and their embeddings as colors."""
    model = keras_rpe.models.InstanceSegmenter.from_preset("nuclei")
    image = keras_rpe.data.read_image(next((folder / "images").glob(f"{NUCLEI}.*")))[
        :HEIGHT, :WIDTH
    ]
    found = model.predict_instances(image)
    rgb = np.dstack([image] * 3) if image.ndim == 2 else image[..., :3]
    shown = np.clip(255 * (rgb / np.percentile(rgb, 99.8)), 0, 255).astype("uint8")
    embedding = np.asarray(model.embed(rgb[None].astype("float32"))[0])
    colors = embedding_colors(embedding[0])[0].repeat(model.output_stride, 0)
    colors = colors.repeat(model.output_stride, 1)[:HEIGHT, :WIDTH] * (found.labels > 0)[..., None]
    return [shown, overlay_instances(shown, found.labels), colors.astype("uint8")]


def photograph() -> list[np.ndarray]:
    """A photograph, the best proposal in it, and its boundaries."""
    image = data.chelsea()
    size = (image.shape[0] * WIDTH // image.shape[1], WIDTH)
    proposer = keras_rpe.models.ObjectProposer.from_preset("objects")
    best = proposer.predict_proposals(image, max_proposals=1).masks[0]
    detector = keras_rpe.models.BoundaryDetector.from_preset("boundaries")
    lines = 255 * (1 - detector.predict_boundaries(image).probabilities)
    pictures = [image, overlay_instances(image, best.astype("int32")), np.dstack([lines] * 3)]
    return [
        resize(picture, size, preserve_range=True, anti_aliasing=True).astype("uint8")
        for picture in pictures
    ]


def main() -> None:
    """Draw both rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DSB2018")
    parser.add_argument("--out", type=Path, default=Path("demo.png"))
    options = parser.parse_args()
    rows = []
    for pictures in (nuclei(options.folder), photograph()):
        padded = [
            np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
            for picture in pictures
        ]
        rows.append(np.concatenate(padded, axis=1))
    keras_rpe.data.write_image(options.out, np.concatenate(rows)[:-GAP, :-GAP])


if __name__ == "__main__":
    main()
