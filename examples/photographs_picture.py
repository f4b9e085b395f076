"""Draw what the presets find in photographs of scikit-image: classes, instances, proposals.

    python examples/photographs_picture.py --out photographs.png

A column for each photograph; below it the classes of its pixels, instances with classes, and the
best proposals. No preset was trained on these photographs.
"""

import argparse
from pathlib import Path

import numpy as np
from skimage import data
from skimage.transform import resize

from keras_rpe.data import write_image
from keras_rpe.models import InstanceSegmenter, ObjectProposer, SemanticSegmenter
from keras_rpe.visualization import overlay_instances

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "stereo_motorcycle")
LONG_SIDE = 400  # Of the photographs that the presets were trained on, about.
HEIGHT, GAP, PROPOSALS = 160, 4, 3


def main() -> None:
    """Print what is found, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", default="voc_classes", help="a preset")
    parser.add_argument("--instances", default="voc_instances", help="a preset")
    parser.add_argument("--proposals", default="objects", help="a preset")
    parser.add_argument("--out", type=Path, default=Path("photographs.png"))
    options = parser.parse_args()
    classify = SemanticSegmenter.from_preset(options.classes)
    segment = InstanceSegmenter.from_preset(options.instances)
    propose = ObjectProposer.from_preset(options.proposals)
    columns = []
    for name in PHOTOGRAPHS:
        photograph = getattr(data, name)()
        image = photograph[0] if isinstance(photograph, tuple) else photograph
        factor = LONG_SIDE / max(image.shape)
        size = [round(side * factor) for side in image.shape[:2]]
        image = (255 * resize(image, size, anti_aliasing=True)).round().astype("uint8")
        classes = classify.predict_classes(image)
        instances = segment.predict_instances(image)
        proposals = propose.predict_proposals(image, PROPOSALS).masks
        print(f"{name}: {', '.join(map(classify.class_name, classes.areas))}")
        print(f"  instances: {', '.join(map(segment.class_name, instances.classes))}")
        best = np.zeros(size, "int32")
        for number in reversed(range(len(proposals))):  # The best is on top.
            best[proposals[number]] = number + 1
        maps = (classes.classes, instances.labels, best)
        shown = [image, *(overlay_instances(image, one) for one in maps)]
        width = round(size[1] * HEIGHT / size[0])
        column = [resize(one, (HEIGHT, width), anti_aliasing=True) for one in shown]
        white = ((0, GAP), (0, GAP), (0, 0))
        column = [np.pad(one, white, constant_values=1.0) for one in column]
        columns.append(np.concatenate(column))
    picture = np.concatenate(columns, axis=1)[:-GAP, :-GAP]
    write_image(options.out, (255 * picture).round().astype("uint8"))


if __name__ == "__main__":
    main()
