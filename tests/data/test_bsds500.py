from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from bsds500_files import add, drawn, segmentation

from keras_rpe.data import LabelFolderError, bsds500
from keras_rpe.data import bsds500 as dataset_function

SMALL = {"crop_size": 24, "batch_size": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bsds500")
    for name, annotators in zip("abcdef", (1, 4, 5, 6, 3, 4)):
        add(path, name, annotators=annotators)
    add(path, "v", "val", width=30)
    return path


def batches(dataset: tf.data.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(images.numpy(), shares.numpy()) for images, shares in dataset]


def equal(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b) for x, y in zip(one, other) for a, b in zip(x, y)
    )


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize(("repeats", "batch_size"), [(1, 4), (3, 8), (1, 100)])
def test_shapes_values_and_length(folder, augment, repeats, batch_size):
    dataset = bsds500(
        folder, crop_size=(24, 16), batch_size=batch_size, repeats=repeats, augment=augment
    )
    assert dataset.element_spec == (
        tf.TensorSpec((None, 24, 16, 3), tf.float32),
        tf.TensorSpec((None, 24, 16), tf.float32),
    )
    found = batches(dataset)
    assert len(dataset) == len(found) == -(-6 * repeats // batch_size)
    assert sum(len(images) for images, _ in found) == 6 * repeats
    exact = {np.float32(k) / np.float32(n) for n in (1, 3, 4, 5, 6) for k in range(n + 1)} | {-1}
    for images, shares in found:
        assert 0 <= images.min() < images.max() <= 255
        assert set(np.unique(shares)) <= exact
    assert max(shares.max() for _, shares in found) > 0


def test_whole_images_have_the_shares_of_their_annotators(folder):
    dataset = bsds500(
        folder, names=["b"], crop_size=None, batch_size=1, augment=False, shuffle=False
    )
    ((images, shares),) = batches(dataset)
    expected = np.mean([drawn(segmentation(shift=one)) for one in range(4)], axis=0)
    np.testing.assert_allclose(shares[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(images[0, ..., 0], segmentation() * 80)


@pytest.mark.parametrize("augment", [False, True])
def test_seed_and_shuffle_decide_the_batches(folder, augment):
    def made(**options: object) -> tf.data.Dataset:
        return bsds500(folder, **SMALL, augment=augment, **options)

    one = made(seed=3)
    first, second = batches(one), batches(one)
    assert not equal(first, second)
    assert equal(first, batches(made(seed=3)))
    assert not equal(first, batches(made(seed=4)))
    assert not equal(first, batches(made(seed=None)))
    still = made(shuffle=False)
    assert equal(batches(still), batches(still))


def test_parts_and_names(folder):
    def count(**options: object) -> int:
        return sum(len(images) for images, _ in bsds500(folder, **SMALL, **options))

    assert count(split="val") == 1
    assert count(split=("train", "val")) == 7
    assert count(split=("train", "val"), names=["v", "a"]) == 2
    with pytest.raises(LabelFolderError, match="names has 1 of which there is no image.*'v'"):
        bsds500(folder, names=["v", "a"])


def test_zoom_sets_how_much_is_shown(folder):
    def void(zoom: tuple[float, float]) -> float:
        found = batches(bsds500(folder, crop_size=24, batch_size=6, zoom=zoom, repeats=4))
        return float(np.mean([np.mean(shares < 0) for _, shares in found]))

    assert void((0.4, 0.4)) > 0.3
    assert void((1.0, 1.0)) == 0
    assert void((1.5, 2.0)) == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"crop_size": 0}, "crop_size needs a whole number from 1 to 4096"),
        ({"crop_size": (3, 4, 5)}, "crop_size needs"),
        ({"crop_size": 10**9}, "crop_size needs"),
        ({"crop_size": 2.5}, "crop_size needs"),
        ({"crop_size": None}, "crop_size=None needs batch_size=1 and augment=False"),
        ({"batch_size": 0}, "batch_size needs a whole number from 1"),
        ({"repeats": True}, "repeats needs a whole number from 1"),
        ({"augment": "yes"}, "augment needs True or False"),
        ({"zoom": (2, 1)}, "zoom needs two factors in order"),
        ({"zoom": (1, 2, 3)}, "zoom needs two factors in order"),
        ({"zoom": (float("nan"), 1)}, "zoom needs two factors in order"),
        ({"zoom": 1.5}, "zoom needs two factors in order"),
        ({"seed": -1}, "seed needs a whole number"),
        ({"seed": 1.5}, "seed needs a whole number"),
        ({"names": "a"}, "names needs a list"),
        ({"names": []}, "names needs a list"),
        ({"split": "all"}, "split needs one of train, val, test"),
    ],
)
def test_arguments_are_checked(folder, options, reason):
    with pytest.raises(ValueError, match=f"^{reason}.* Received: "):
        bsds500(folder, **options)


def test_all_bad_files_are_listed(tmp_path):
    for name in "abc":
        add(tmp_path, name)
    (tmp_path / "groundTruth/train/a.mat").write_bytes(b"nothing")
    (tmp_path / "images/train/c.png").write_bytes(b"")
    with pytest.raises(
        LabelFolderError, match=r"^2 of 3 images cannot be used: .*a\.mat .*; .*c\.png is empty"
    ):
        bsds500(tmp_path)


def test_images_beyond_the_memory_are_read_again(tmp_path, monkeypatch):
    for name in "ab":
        add(tmp_path, name)
    kept = batches(bsds500(tmp_path, **SMALL))
    monkeypatch.setitem(dataset_function.__globals__, "CACHE_BYTES", 0)
    dataset = bsds500(tmp_path, **SMALL)
    assert equal(kept, batches(dataset))
    for file in (tmp_path / "groundTruth/train").iterdir():
        file.write_bytes(b"")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"mat cannot be read as a MATLAB"):
        batches(dataset)


def test_real_images(bsds500_root):
    names = ["100075", "100080", "100098", "103041"]
    dataset = bsds500(bsds500_root, names=names)
    ((images, shares),) = batches(dataset)
    assert images.shape == (4, 320, 320, 3)
    drawn_on = (shares > 0).sum() / (shares >= 0).sum()
    assert 0.005 < drawn_on < 0.2
