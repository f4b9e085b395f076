"""Draw the loop of correction: what was found, what was corrected, what a trained model finds.

    python examples/correction_picture.py SLIDES --corrected IMAGE --new IMAGE \
        --before nuclei --after runs/mine/preset --out correction.png

SLIDES holds `images`, and `instances` with the corrected labels. The first row is an image that was
corrected: found before, corrected. The second is one that the model was not trained on: found
before, and found after training.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from keras_rpe.data import label_folder, write_image
from keras_rpe.models import InstanceSegmenter
from keras_rpe.results import rgb_array
from keras_rpe.visualization import overlay_instances

SIDE, GAP = 256, 6


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="SLIDES")
    parser.add_argument("--corrected", required=True, help="name of an image, without ending")
    parser.add_argument("--new", required=True, help="name of another")
    parser.add_argument("--before", default="nuclei", help="preset")
    parser.add_argument("--after", required=True, help="preset")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    images = label_folder(options.folder)
    before, after = map(InstanceSegmenter.from_preset, (options.before, options.after))
    rows = []
    for name in (options.corrected, options.new):
        image, labels, _ = images.subset([name])[0]
        second = labels
        if name == options.new:
            second = after.predict_instances(image).labels
        shown = rgb_array(image)[:SIDE, :SIDE].astype("uint8")
        panels = [before.predict_instances(image).labels, second]
        overlays = [overlay_instances(shown, one[:SIDE, :SIDE]) for one in panels]
        rows.append(np.concatenate([overlays[0], np.full((SIDE, GAP, 3), 255), overlays[1]], 1))
    gap = np.full((GAP, rows[0].shape[1], 3), 255)
    picture = np.concatenate([rows[0], gap, rows[1]]).astype("uint8")
    write_image(options.out, np.asarray(Image.fromarray(picture).quantize(128).convert("RGB")))


if __name__ == "__main__":
    main()
