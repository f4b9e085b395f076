from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Iterable

import keras
import numpy as np
import pytest
import tensorflow as tf
from digit_sources import blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_rpe.data import ImageFileError, digits
from keras_rpe.data.digits import (
    CORNERS,
    DIGIT_COLORS,
    MIN_PIXELS,
    digit_images,
    digit_scene,
)

SMALL = {"num_scenes": 10, "batch_size": 4}
SOURCE = blocks()


def scenes(dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The images and the instances of one epoch."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in dataset]
    images, labels = zip(*batches)
    return np.concatenate(images), np.concatenate(labels)


def equal(one: Iterable[np.ndarray], other: Iterable[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other))


def test_scenes_are_those_of_their_generator():
    options = {"min_digits": 2, "max_digits": 5, "same_class_share": 0.5, "threshold": 60}
    dataset = digits(SOURCE, "test", classes=True, seed=5, **SMALL, **options)
    picture, maps = (tf.TensorSpec((None, 64, 64, 3)), tf.TensorSpec((None, 64, 64), tf.int32))
    assert dataset.element_spec == (picture, {"instances": maps, "classes": maps})
    assert digits(SOURCE, num_scenes=3, batch_size=100).element_spec == (picture, maps)
    assert len(dataset) == 3
    images_by_digit = digit_images(SOURCE, "test")
    number = 0
    for images, labels in dataset:
        for image, instances, classes in zip(images, labels["instances"], labels["classes"]):
            rng = np.random.default_rng([5, 1, number])  # The seed, the split and the scene.
            scene = digit_scene(rng, images_by_digit, **options)
            for one, other in zip(scene, (image, instances, classes)):
                np.testing.assert_array_equal(one, other)
            number += 1
    assert number == 10


def test_seed_alone_decides():
    first = scenes(digits(SOURCE, **SMALL))
    assert equal(first, scenes(digits(SOURCE, seed=0, num_scenes=10, batch_size=3)))
    longer = scenes(digits(SOURCE, num_scenes=13, batch_size=5))
    assert equal(first, [one[:10] for one in longer])
    assert not equal(first, scenes(digits(SOURCE, seed=1, **SMALL)))
    random.seed(3)
    drawn = scenes(digits(SOURCE, seed=None, **SMALL))
    assert not equal(drawn, scenes(digits(SOURCE, seed=None, **SMALL)))
    random.seed(3)
    assert equal(drawn, scenes(digits(SOURCE, seed=None, **SMALL)))


def test_epochs_repeat_or_go_on():
    fixed = digits(SOURCE, **SMALL)
    assert equal(scenes(fixed), scenes(fixed))
    fresh = digits(SOURCE, fresh=True, **SMALL)
    epochs = [scenes(fresh) for _ in range(3)]
    together = [np.concatenate(parts) for parts in zip(*epochs)]
    assert equal(together, scenes(digits(SOURCE, num_scenes=30, batch_size=7)))
    assert not equal(epochs[0], epochs[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_scenes", 1.5),
        ("batch_size", 0),
        ("fresh", 1),
        ("classes", "yes"),
        ("seed", -1),
        ("max_digits", 10),
        ("min_digits", -1),
        ("same_class_share", float("nan")),
        ("threshold", 255),
        ("split", "val"),
    ],
)
def test_arguments_are_checked(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .* Received: {name}={value!r}"):
        digits(SOURCE, **{name: value})


def specks(seed: int, density: float) -> list[np.ndarray]:
    """Two images of scattered pixels a digit, few enough for some to vanish below others."""
    rng = np.random.default_rng(seed)
    gray = rng.integers(0, 256, (10, 2, 28, 28))
    return list(np.where(rng.random(gray.shape) < density, gray, 0).astype(np.uint8))


def reference(
    rng: np.random.Generator,
    images: list[np.ndarray],
    counts: list[int],
    share: float,
    threshold: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint from back to front, pixel by pixel, and again until no digit is too small."""
    count = rng.integers(counts[0], counts[1] + 1)
    one_class = rng.random() < share
    corners = [CORNERS[k] for k in rng.permutation(9)[:count]]
    digits = rng.integers(10, size=count)
    digits = [digits[0]] * count if one_class and count else list(digits)
    chosen = [
        images[digit][int(share_of * len(images[digit]))]
        for digit, share_of in zip(digits, rng.random(count))
    ]

    def paint(kept: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = np.zeros((64, 64, 3), np.uint8)
        instances, classes = np.zeros((64, 64), int), np.zeros((64, 64), int)
        for number, k in enumerate(kept, start=1):
            for row, column in zip(*np.nonzero(chosen[k] > threshold)):
                at = (corners[k][0] + row, corners[k][1] + column)
                color = np.array(DIGIT_COLORS[digits[k]])
                image[at] = np.floor(int(chosen[k][row, column]) * color + 0.5)
                instances[at] = number
                classes[at] = digits[k] or 10
        return image, instances, classes

    kept = list(range(count))
    while True:
        scene = paint(kept)
        sizes = np.bincount(scene[1].ravel(), minlength=len(kept) + 1)[1:]
        small = [k for k, size in zip(kept, sizes) if size < MIN_PIXELS]
        if not small:
            return scene
        kept.remove(small[-1])


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.01, 0.02, 0.03, 0.1, 0.6]),
    st.tuples(st.integers(0, 9), st.integers(1, 9)).map(sorted),
    st.sampled_from([0.0, 1 / 3, 1.0]),
    st.sampled_from([0, 1, 100, 254]),
)
def test_scenes_are_those_of_painting_one_over_the_other(seed, density, counts, share, threshold):
    images = specks(seed, density)
    options = {"min_digits": counts[0], "max_digits": counts[1], "same_class_share": share}
    scene = digit_scene(np.random.default_rng(seed), images, **options, threshold=threshold)
    expected = reference(np.random.default_rng(seed), images, counts, share, threshold)
    assert [one.dtype.name for one in scene] == ["uint8", "int32", "int32"]
    for one, other in zip(scene, expected):
        np.testing.assert_array_equal(one, other)


def test_colors_classes_and_order_are_the_authors(golden_root):
    golden = np.load(golden_root / "mean_shift_digits_a.npz")
    image, instances, classes = (golden[name] for name in ("image", "instances", "classes"))
    assert image.dtype == np.uint8
    # What this module makes of each gray value in each class.
    ramp = np.zeros((1, 28, 28), np.uint8)
    ramp[0, :16, :16] = np.arange(256).reshape(16, 16)
    shades = np.zeros((11, 256, 3), np.uint8)
    for seed in range(100):
        ours, _, kinds = digit_scene(
            np.random.default_rng(seed), [ramp] * 10, min_digits=1, max_digits=1
        )
        shades[kinds.max(), ours.max(axis=-1)] = ours
    assert (shades[1:].max(axis=-1) == np.arange(256)).all()
    # The largest part of each color is 1, so that the largest part of a pixel is its gray value.
    np.testing.assert_array_equal(shades[classes, image.max(axis=-1)], image)
    np.testing.assert_array_equal(instances > 0, image.max(axis=-1) > 0)


def grays(images: list[np.ndarray]) -> list[set[int]]:
    return [set(one.max(axis=(1, 2)).tolist()) for one in images]


@pytest.mark.parametrize("per_class", [2, 7, 20])
def test_splits_share_no_image_and_leave_none_out(per_class):
    source = blocks(per_class)
    train, test = (grays(digit_images(source, split)) for split in ("train", "test"))
    for digit in range(10):
        every = {gray for gray in range(1, 10 * per_class + 1) if (gray - 1) % 10 == digit}
        assert train[digit] | test[digit] == every
        assert not train[digit] & test[digit]
        assert len(test[digit]) == -(-per_class // 7)
    assert grays(digit_images(source, "test")) == test


def test_files_and_arrays_give_the_same(tmp_path):
    x, y = blocks()
    np.savez(tmp_path / "digits.npz", x=x, y=y)
    for split in ("train", "test"):
        expected = digit_images((x, y), split)
        for source in (tmp_path / "digits.npz", str(tmp_path / "digits.npz"), [x, y.tolist()]):
            found = digit_images(source, split)
            assert all(np.array_equal(*pair) for pair in zip(found, expected))
            assert all(one.dtype == np.uint8 and one.flags.c_contiguous for one in found)


def test_splits_of_the_source_are_kept(tmp_path, monkeypatch):
    (x, y), (other_x, other_y) = blocks(3), blocks(2)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=255 - other_x, y_test=other_y)
    monkeypatch.setattr(
        keras.datasets.mnist, "load_data", lambda: ((x, y), (255 - other_x, other_y))
    )
    for source in (tmp_path / "mnist.npz", None):
        assert [len(one) for one in digit_images(source)] == [3] * 10
        test = digit_images(source, "test")
        assert [len(one) for one in test] == [2] * 10
        np.testing.assert_array_equal(test[4], (255 - other_x)[other_y == 4])
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: 1 // 0)
    with pytest.raises(ValueError, match=r"source=None[^\n]*division[^\n]*pass the path[^\n]*$"):
        digit_images()


def npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


X, Y = SOURCE
GOOD = {"x": npy(X), "y": npy(Y)}


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (X.astype(np.float32), Y, "images of float32"),
        (X[:, :27], Y, r"shape \(140, 27, 28\)"),
        (X, Y[:-1], r"\(139,\) for 140 images"),
        (X, Y / 1.0, "labels of float64"),
        (X, np.where(Y == 3, 10, Y), "the label 10"),
        (X, np.where((Y == 3) & (X.max(axis=(1, 2)) > 10), 4, Y), "no image of the digit 3"),
    ],
)
def test_arrays_are_checked(tmp_path, x, y, reason):
    with pytest.raises(ValueError, match=f"^`source` must be .* Received: .*{reason}"):
        digit_images((x, y))
    path = tmp_path / "digits.npz"
    np.savez(path, x=x, y=y)
    with pytest.raises(ImageFileError, match=rf"digits\.npz is not an \.npz .*{reason}[^\n]*$"):
        digit_images(path)
    for source in (3, (1,), (X, X, X), (X, [[1], [2, 3]])):
        with pytest.raises(ValueError, match="^`source` must be None, the path .* Received: "):
            digit_images(source)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"x_train": npy(X), "y_train": npy(Y)}, "neither x_test and y_test nor x and y"),
        (GOOD | {"x": npy(np.array([{}], dtype=object), allow_pickle=True)}, "allow_pickle=False"),
        (GOOD | {"x": npy(X)[:-1]}, ""),
        (GOOD | {"x": npy(np.tile(X, (2, 1, 1)))}, r"its array x has \d+ bytes"),
        (GOOD | {"y": b"nothing"}, ""),
        (GOOD | {"x": npy(X).replace(b"(140, 28, 28), }   ", b"(99999999, 28, 28)}")}, ""),
    ],
)
def test_files_are_checked(tmp_path, monkeypatch, members, reason):
    path = tmp_path / "digits.npz"
    for missing in (path, tmp_path):
        with pytest.raises(ImageFileError, match="does not exist, or is not a file"):
            digit_images(missing)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    monkeypatch.setitem(digit_images.__globals__, "_MAX_BYTES", 120_000)
    with pytest.raises(ImageFileError, match=rf"digits\.npz is not an \.npz .*{reason}[^\n]*\.$"):
        digit_images(path, "test")
