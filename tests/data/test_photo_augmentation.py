from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_rpe.data import photo_augmentation


def data(count: int = 16) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(0)
    # Rows and columns differ; values far from the ends keep their order in each channel.
    images = rng.uniform(60, 190, (count, 12, 20, 3)).astype(np.float32)
    masks = rng.integers(0, 9, (count, 12, 20, 1)).astype(np.float32)
    return {"images": tf.constant(images), "segmentation_masks": tf.constant(masks)}


def test_masks_are_mirrored_or_not_and_images_with_them():
    given = data()
    kept = {key: value.numpy() for key, value in given.items()}
    changed = photo_augmentation(seed=1)(given)
    np.testing.assert_array_equal(given["images"], kept["images"])
    flips = []
    for before, after, mask, changed_mask in zip(
        kept["images"],
        changed["images"].numpy(),
        kept["segmentation_masks"],
        changed["segmentation_masks"].numpy(),
    ):
        flipped = not np.array_equal(mask, changed_mask)
        if flipped:
            np.testing.assert_array_equal(mask[:, ::-1], changed_mask)
            before = before[:, ::-1]
        flips.append(flipped)
        gray = [one.mean(-1).ravel() for one in (before, after)]
        assert np.corrcoef(*gray)[0, 1] > 0.9
        assert not np.allclose(before, after)
    assert 3 < sum(flips) < 13
    assert changed["images"].numpy().min() >= 0
    assert changed["images"].numpy().max() <= 255


def test_seed_repeats():
    one, two, other = (photo_augmentation(seed)(data())["images"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_runs_in_a_graph():
    dataset = tf.data.Dataset.from_tensors(data(3)).map(photo_augmentation(seed=2))
    assert next(iter(dataset))["images"].shape == (3, 12, 20, 3)
