"""Show how much of the gradient falls on the pixels between touching digits.

    python examples/tutorials/gradient_share.py --out runs/gradient_share

The loss on the embeddings of test scenes is computed after 0, 1, 3 or 5 loops of mean shift, and
differentiated with respect to the embeddings before the first loop. The network would learn from
this gradient. Without loops, every pixel that is not yet in its place contributes. Loops move
pixels that are about right to the place of their group, so the rest of the gradient is for the
others, between touching digits. See Kong & Fowlkes (CVPR 2018), section 4.

The table has the share of the gradient's norm, summed over the digits' pixels, that falls on pixels
within 2 pixels of another digit, and the share of such pixels. It has the same for pixels that the
decoder assigns to a wrong digit or to none. `--preset` may be a preset with less training;
`--source FILE.npz` reads digits from a file, instead of MNIST, which Keras downloads.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib import colormaps

from keras_rpe.data import digits
from keras_rpe.losses import CosineMarginLoss
from keras_rpe.models import InstanceSegmenter
from keras_rpe.ops import mean_shift
from keras_rpe.visualization import overlay_instances

LOOPS = (0, 1, 3, 5)
NEAR = 2  # Pixels to another digit.
VOID = -1
SHOWN, SCALE, GAP = 4, 3, 6


def near_other_digits(instances: np.ndarray) -> np.ndarray:
    """Find pixels of digits within `NEAR` pixels, also diagonally, of another digit."""
    padded = np.pad(instances, NEAR)
    height, width = instances.shape
    near = np.zeros(instances.shape, bool)
    for row in range(2 * NEAR + 1):
        for column in range(2 * NEAR + 1):
            other = padded[row : row + height, column : column + width]
            near |= (other > 0) & (other != instances)
    return near & (instances > 0)


def gradient_function(model: InstanceSegmenter) -> Callable[..., tf.Tensor]:
    """A function from embeddings to the gradient of the loss after some loops."""
    loss = CosineMarginLoss(
        margin=model.margin, num_samples=None, ignore_label=VOID, neighborhood=model.neighborhood
    )

    @tf.function
    def gradient_of(
        embedding: tf.Tensor, weights: tf.Tensor, labels: tf.Tensor, loops: int
    ) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(embedding)
            x = tf.reshape(embedding, (1, -1, model.embedding_dim))
            if loops:
                x = mean_shift(x, model.mean_shift.bandwidth, loops, weights=weights)
            value = loss(labels, tf.reshape(x, tf.shape(embedding)))
        gradient = tape.gradient(value, embedding)
        # The part that would move a point off the sphere has no effect.
        return gradient - tf.reduce_sum(gradient * embedding, -1, keepdims=True) * embedding

    return gradient_of


def picture(image: np.ndarray, instances: np.ndarray, norms: list[np.ndarray]) -> np.ndarray:
    """The scene with its instances, and each number of loops' gradient, scaled separately."""
    panels = [overlay_instances(image, instances)]
    for norm in norms:
        bright = (norm / max(float(norm.max()), 1e-12)) ** 0.5
        panels.append((255 * colormaps["magma"](bright)[..., :3]).astype("uint8"))
    large = [panel.repeat(SCALE, axis=0).repeat(SCALE, axis=1) for panel in panels]
    gap = np.full((len(large[0]), GAP, 3), 255, "uint8")
    return np.concatenate([part for panel in large for part in (gap, panel)][1:], axis=1)


def main() -> None:
    """Print the table, and draw where the gradient goes in some scenes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--source", help="an .npz file; default: Keras downloads MNIST")
    parser.add_argument("--scenes", type=int, default=20)
    options = parser.parse_args()
    if options.scenes < 1:
        parser.error(f"--scenes needs at least 1. Received: {options.scenes}")
    model = InstanceSegmenter.from_preset(options.preset)
    gradient_of = gradient_function(model)
    dataset = digits(
        options.source, "test", num_scenes=options.scenes, min_digits=6, same_class_share=1 / 3
    )
    totals, on_border = np.zeros(len(LOOPS)), np.zeros(len(LOOPS))
    on_wrong, counts = np.zeros(len(LOOPS)), np.zeros(3)
    pictures = []
    for images, labels in dataset:
        for image, instances in zip(images.numpy(), labels.numpy()):
            near = near_other_digits(instances)
            embedding, scores = model.embed(image[None])
            weights = tf.reshape(tf.reduce_sum(scores, axis=-1), (1, -1, 1))
            truth = tf.constant(np.where(instances > 0, instances, VOID)[None])
            gradients = [gradient_of(embedding, weights, truth, loops)[0] for loops in LOOPS]
            norms = [np.linalg.norm(one, axis=-1) * (instances > 0) for one in gradients]
            wrong = wrong_pixels(instances, model.predict_instances(image).labels)
            totals += [norm.sum() for norm in norms]
            on_border += [norm[near].sum() for norm in norms]
            on_wrong += [norm[wrong].sum() for norm in norms]
            counts += [(instances > 0).sum(), near.sum(), wrong.sum()]
            if len(pictures) < 2 * SHOWN:
                row = picture(image, instances, norms)
                pictures += [row, np.full((GAP, row.shape[1], 3), 255, "uint8")]
    print(f"share of the gradient's norm, {options.scenes} scenes of 6 to 9 digits")
    print(f"{'loops':10}{'near another digit':>22}{'wrong in the result':>22}")
    print(f"{'(pixels)':10}{counts[1] / counts[0]:22.3f}{counts[2] / counts[0]:22.3f}")
    for loops, total, border, wrong in zip(LOOPS, totals, on_border, on_wrong):
        print(f"{loops:<10}{border / total:22.3f}{wrong / total:22.3f}")
    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.save_img(options.out / "gradient.png", np.concatenate(pictures[:-1]), scale=False)


def wrong_pixels(instances: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Pixels of digits outside the instance that has most of the digit's pixels."""
    wrong = np.zeros(instances.shape, bool)
    for i in np.unique(instances[instances > 0]):
        mask = instances == i
        wrong |= mask & (found != np.bincount(found[mask]).argmax())
    return wrong | ((instances > 0) & (found == 0))


if __name__ == "__main__":
    main()
