from __future__ import annotations

import keras
import numpy as np
import pytest
from digit_sources import blocks

from keras_rpe.data import ImageFileError
from keras_rpe.data.digits import digit_images


def grays(images: list[np.ndarray]) -> list[set[int]]:
    return [set(one.max(axis=(1, 2)).tolist()) for one in images]


@pytest.mark.parametrize("per_class", [2, 7, 14, 20])
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


def test_failed_download_is_one_sentence_with_a_way_out(monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://example.org: None -- no route\nmore")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(
        ValueError, match=r"^source=None is MNIST.*no route\): pass the path .* Received: so[^\n]*$"
    ):
        digit_images()


@pytest.mark.parametrize(
    "source",
    [
        3,
        (1,),
        (np.zeros((2, 28, 28), np.uint8),) * 3,
        (np.zeros((2, 28, 28), np.uint8), np.zeros(3, int)),
        (np.zeros((2, 28, 28), np.uint8), np.zeros(2)),
        (np.zeros((2, 28, 28)), np.zeros(2, int)),
        (np.zeros((2, 27, 28), np.uint8), np.zeros(2, int)),
        (np.zeros((2, 28, 28), np.uint8), [[1], [2, 3]]),
        (np.uint8(3), np.uint8(3)),
    ],
)
def test_sources_are_checked(source):
    with pytest.raises(ValueError, match=r"^source needs None, the path .* Received: "):
        digit_images(source)


def test_labels_classes_and_split_are_checked(tmp_path):
    x, y = blocks()
    with pytest.raises(ValueError, match=r"^split needs one of train, test\. Received: split='al"):
        digit_images((x, y), "all")
    for labels, reason in (
        (np.where(y == 3, 10, y), "the label 10, which is not from 0 to 9"),
        (np.where(y == 3, -1, y.astype(int)), "the label -1, which is not from 0 to 9"),
        (np.where((y == 3) | (y == 5), 4, y), "no image of 3, 5 for the split train"),
        (np.where((y == 3) & (x.max(axis=(1, 2)) > 10), 4, y), "no image of 3 for the split train"),
    ):
        with pytest.raises(ValueError, match=f"^source needs labels .* Received: {reason}$"):
            digit_images((x, labels))
        np.savez(tmp_path / "digits.npz", x=x, y=labels)
        with pytest.raises(ImageFileError, match=rf"digits\.npz has {reason}\.$"):
            digit_images(tmp_path / "digits.npz")


def test_real_digits(data_root):
    path = data_root / "mnist_10k.npz"
    if not path.is_file():
        pytest.skip(f"MNIST not found in {path}")
    train, test = digit_images(path), digit_images(path, "test")
    assert sum(map(len, train)) + sum(map(len, test)) == 10_000
    assert all(0.13 < len(one) / (len(one) + len(other)) < 0.16 for one, other in zip(test, train))
    # A one is thinner than a zero.
    assert np.mean(train[1] > 0) < 0.6 * np.mean(train[0] > 0)
