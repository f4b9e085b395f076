import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_rpe.data import default_augmentation, photo_augmentation

IDS = (0.0, 7.0, 2000.0, 60000.0)


def checkers(batch: int, side: int) -> np.ndarray:
    rows, columns = np.indices((side, side))
    masks = np.array(IDS)[(rows // 12 + 2 * (columns // 12)) % 4]
    return np.repeat(masks[None, ..., None], batch, 0).astype("float32")


def through_tf_data(augment, images: np.ndarray, masks: np.ndarray) -> tuple:
    data = {"images": images, "segmentation_masks": masks}
    out = next(iter(tf.data.Dataset.from_tensors(data).map(augment)))
    return out["images"].numpy(), out["segmentation_masks"].numpy()


@pytest.fixture(params=["float32", "mixed_float16"])
def _policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("_policy")
def test_ids_survive():
    crop_size = (32, 24)
    masks = checkers(6, 64)
    images = np.repeat(masks / 100, 3, -1)
    changed, changed_masks = through_tf_data(default_augmentation(1, crop_size), images, masks)
    assert changed.shape == (6, *crop_size, 3)
    assert changed_masks.shape == (6, *crop_size, 1)
    assert changed.dtype == changed_masks.dtype == np.float32
    assert set(np.unique(changed_masks)) == set(IDS)
    assert not np.array_equal(changed_masks[0], changed_masks[1])


@pytest.mark.parametrize("crop_size", [None, (40, 40)])
def test_image_and_mask_move_together(crop_size):
    masks = (checkers(8, 96) == 7).astype("float32")
    images = np.repeat(masks * 200 + 20, 3, -1)
    changed, changed_masks = through_tf_data(default_augmentation(2, crop_size), images, masks)
    for image, mask in zip(changed[..., 0], changed_masks[..., 0]):
        inside = image[mask > 0].mean()
        outside = image[mask == 0].mean()
        wrong = (image > (inside + outside) / 2) != (mask > 0)
        assert wrong.mean() < 0.05
    assert not np.array_equal(changed_masks, masks[:, : changed_masks.shape[1], :40])


def test_middle_shows_only_real_pixels():
    """With the margin that `label_folder` gives, nothing is continued by reflection."""
    side = 2 * int(np.ceil(np.hypot(32, 32) / 2)) + 1
    rows, columns = np.indices((side, side)) - side // 2
    masks = (np.hypot(rows, columns) <= side / 2).astype("float32")
    masks = np.repeat(masks[None, ..., None], 16, 0)
    images = np.zeros((16, side, side, 3), "float32")
    _, changed = through_tf_data(default_augmentation(3, (32, 32)), images, masks)
    assert changed.min() == 1


def test_values_stay_in_the_range_of_the_image():
    low, high = -5, 8
    images = np.random.default_rng(0).uniform(low, high, (4, 32, 32, 3)).astype("float32")
    changed, _ = through_tf_data(default_augmentation(4), images, checkers(4, 32))
    assert np.isfinite(changed).all()
    for before, after in zip(images, changed):
        # The reduction over pixels happens after turning, which can only narrow the range.
        slack = 1e-4 * (high - low)
        assert after.min() >= min(before.min(), 0) - slack
        assert after.max() <= before.max() + slack
        assert after.std() > 0
    assert not np.allclose(changed.mean((1, 2, 3)), images.mean((1, 2, 3)), rtol=1e-3)
    gray = np.repeat(images[..., :1], 3, -1)
    changed, _ = through_tf_data(default_augmentation(6), gray, checkers(4, 32))
    assert np.ptp(changed, axis=-1).max() < 1e-5 * (high - low)
    changed, _ = through_tf_data(default_augmentation(5), 0 * images, checkers(4, 32))
    assert not changed.any()  # NaN counts as any


def test_seed_repeats_the_sequence_and_calls_differ():
    masks = checkers(2, 32)
    images = np.repeat(masks, 3, -1)

    def run(seed: int | None) -> list[np.ndarray]:
        data = tf.data.Dataset.from_tensors({"images": images, "segmentation_masks": masks})
        mapped = data.repeat(2).map(default_augmentation(seed))
        return [out["images"].numpy() for out in mapped]

    first, again, other = run(1), run(1), run(2)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first[0], first[1])
    assert not np.allclose(first[0], other[0])
    keras.utils.set_random_seed(3)
    drawn = run(None)
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(drawn, run(None))


def photos(count: int = 16) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(0)
    # Rows and columns differ; values far from the ends keep their order in each channel.
    images = rng.uniform(60, 190, (count, 12, 20, 3)).astype(np.float32)
    masks = rng.integers(0, 9, (count, 12, 20, 1)).astype(np.float32)
    return {"images": tf.constant(images), "segmentation_masks": tf.constant(masks)}


def test_photos_are_mirrored_or_not_with_their_masks():
    given = photos()
    kept = {key: value.numpy() for key, value in given.items()}
    changed = next(iter(tf.data.Dataset.from_tensors(given).map(photo_augmentation(seed=1))))
    photo_augmentation(seed=1)(given)
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
    one, two, other = (photo_augmentation(seed)(photos())["images"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
