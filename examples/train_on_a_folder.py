"""Train a model on a folder of images and label images, and segment new images with it.

    python examples/train_on_a_folder.py FOLDER --out runs/mine

FOLDER holds `images/NAME.png` and `instances/NAME.png` (PNG, JPEG or TIFF; labels are integers, 0 =
background, one id for each object). `keras-rpe train FOLDER --out runs/mine` does the same and can
be killed and resumed; this script shows the parts for a training loop of your own.
"""

import argparse
from pathlib import Path

import keras
from skimage.io import imsave

from keras_rpe.callbacks import InstanceEvaluation, TrainingState
from keras_rpe.data import label_folder
from keras_rpe.models import InstanceSegmenter
from keras_rpe.visualization import overlay_instances


def main() -> None:
    """Train, keep the best model, and draw what it finds in a validation image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--preset", help="fine-tune this preset instead of starting anew")
    options = parser.parse_args()

    keras.utils.set_random_seed(0)
    training, validation = label_folder(options.folder).split(validation_split=0.2)
    # Crops around objects, rotated, zoomed and shaded, eight per step.
    dataset = training.crops(128, batch_size=8, repeats=max(1, 128 // len(training)), seed=0)
    whole_images = [(image, labels) for image, labels, _ in validation]

    if options.preset:
        model = InstanceSegmenter.from_preset(options.preset)
    else:
        model = InstanceSegmenter(backbone="unet_small")
    model.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=1.0))
    best = TrainingState(options.out, monitor="val_ap50", mode="max", patience=8)
    model.fit(
        dataset,
        epochs=options.epochs,
        callbacks=[InstanceEvaluation(whole_images[:16]), best],
    )

    model = keras.saving.load_model(best.best_model)
    model.save_to_preset(options.out / "preset")
    image, _ = whole_images[0]
    result = model.predict_instances(image)
    imsave(options.out / "overlay.png", overlay_instances(image, result.labels))
    print(f"{len(result)} instances, drawn in {options.out / 'overlay.png'}")


if __name__ == "__main__":
    main()
