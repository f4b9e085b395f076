from __future__ import annotations

import gzip
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
from bsds500_files import add, annotator, drawn, segmentation, tar_file, write_truth

from keras_rpe.data import (
    ImageFileError,
    LabelFolderError,
    bsds500,
    find_boundary_pairs,
    read_boundaries,
    read_image,
    unpack_bsds500,
    write_image,
)
from keras_rpe.data.bsds import read_boundary_pair

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


@pytest.mark.parametrize(("augment", "repeats", "batch_size"), [(False, 3, 8), (True, 1, 100)])
def test_shapes_values_and_length(folder, augment, repeats, batch_size):
    options = {"batch_size": batch_size, "repeats": repeats, "augment": augment}
    dataset = bsds500(folder, crop_size=(24, 16), **options)
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


def test_augmented_crops_have_colors_of_their_own(tmp_path):
    add(tmp_path, "one", annotators=1)
    write_image(tmp_path / "images/train/one.png", np.full((40, 48, 3), (90, 120, 60), np.uint8))
    for augment, count in ((False, 1), (True, 8)):
        dataset = bsds500(tmp_path, crop_size=16, batch_size=1, repeats=8, augment=augment)
        colors = [images[0, 0, 0] for images, _ in batches(dataset)]
        assert len(np.unique(np.round(colors), axis=0)) == count


def test_seed_and_shuffle_decide_the_batches(folder):
    def made(**options: object) -> tf.data.Dataset:
        return bsds500(folder, **SMALL, **options)

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
    with pytest.raises(LabelFolderError, match="'v'"):
        bsds500(folder, names=["v", "a"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("crop_size", 0), ("batch_size", 0), ("repeats", True), ("augment", "yes")),
        *(("zoom", (2, 1)), ("seed", 1.5), ("names", "a"), ("names", [])),
        *(("split", value) for value in ("all", (), ("train", "train"))),
    ],
)
def test_arguments_are_checked(folder, name, value):
    with pytest.raises(ValueError, match=f"^`{name}` .*{re.escape(f'{name}={value!r}')}"):
        bsds500(folder, **{name: value})
    for options in ({"batch_size": 4, "augment": False}, {"batch_size": 1}):
        with pytest.raises(ValueError, match="crop_size=None"):
            bsds500(folder, crop_size=None, **options)


GOOD = annotator(segmentation())
OTHER = annotator(segmentation(height=44))


def test_maps_are_read_as_written(tmp_path):
    path = tmp_path / "plane.mat"
    segments = [segmentation(shift=shift) for shift in range(3)]
    write_truth(path, [annotator(one) for one in segments])
    found = read_boundaries(path)
    assert len(found) == 3
    for one, expected in zip(found, segments):
        assert (one.segmentation.dtype, one.boundaries.dtype) == (np.uint16, bool)
        np.testing.assert_array_equal(one.segmentation, expected)
        np.testing.assert_array_equal(one.boundaries, drawn(expected) > 0)
    array = np.zeros((1, 2), [("Segmentation", object), ("Boundaries", object)])
    for index, dtype in enumerate(("float64", "int32")):
        for name, value in GOOD.items():
            array[name][0, index] = value.astype(dtype)
    scipy.io.savemat(path, {"groundTruth": array})
    for one in read_boundaries(path):
        np.testing.assert_array_equal(one.segmentation, GOOD["Segmentation"])


def changed(**maps: object) -> list[object]:
    return [GOOD, {**GOOD, **maps}]


@pytest.mark.parametrize(
    ("annotators", "reason"),
    [
        ([], "cell"),
        ([GOOD, np.zeros((9, 9))], "cell"),
        ([GOOD, {"Segmentation": GOOD["Segmentation"]}], "Boundaries for annotator 2 of 2"),
        (changed(Segmentation="text"), "Segmentation for annotator 2 of 2"),
        (changed(Boundaries=np.zeros((40, 48), np.uint8)), "no boundary at all"),
        ([GOOD, OTHER], "44 x 48 pixels"),
        (changed(Boundaries=OTHER["Boundaries"]), "44 x 48 pixels"),
        (changed(Segmentation=np.full((40, 48), np.nan)), "whole numbers"),
        (changed(Segmentation=np.full((40, 48), 70000)), "whole numbers"),
        (changed(Segmentation=np.ones((4, 48))), "4 x 48 pixels"),
    ],
)
def test_bad_annotations_are_named(tmp_path, annotators, reason):
    path = tmp_path / "plane.mat"
    write_truth(path, annotators)
    with pytest.raises(ImageFileError, match=f"^{path} .*{reason}") as caught:
        read_boundaries(path)
    assert str(caught.value).count("\n") == 0


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "plane.mat"
    with pytest.raises(ImageFileError, match="plane.mat does not exist"):
        read_boundaries(path)
    with pytest.raises(ImageFileError, match="is a folder"):
        read_boundaries(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ImageFileError, match="MATLAB file"):
        read_boundaries(path)
    scipy.io.savemat(path, {"net": np.ones(3)})
    with pytest.raises(ImageFileError, match="has no variable groundTruth"):
        read_boundaries(path)


@pytest.fixture
def parts(tmp_path) -> Path:
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            add(tmp_path, name, split)
    (tmp_path / "images/train/Thumbs.db").touch()
    return tmp_path


def test_pairs_of_one_part_and_of_several(parts):
    assert [pair.name for pair in find_boundary_pairs(parts)] == ["a", "b"]
    pairs = find_boundary_pairs(parts, ("val", "train"))
    assert [pair.name for pair in pairs] == ["c", "a", "b"]
    for pair in pairs:
        assert pair.image.stem == pair.boundaries.stem == pair.name
        image, annotations = read_boundary_pair(pair)
        assert image.shape == (40, 48, 3)
        assert len(annotations) == 4
        np.testing.assert_array_equal(image[..., 0], annotations[0].segmentation * 80)
    write_image(pair.image, read_image(pair.image).transpose(1, 0, 2))
    with pytest.raises(ImageFileError, match="b.mat has 40 x 48 pixels, but its image .* 48 x 40"):
        read_boundary_pair(pair)


def test_all_bad_files_are_listed(parts):
    (parts / "groundTruth/train/a.mat").write_bytes(b"nothing")
    (parts / "images/train/b.png").write_bytes(b"")
    with pytest.raises(LabelFolderError, match=r"^2 of 2 images .*a\.mat .*; .*b\.png is empty"):
        bsds500(parts)


def test_missing_parts_are_named(parts):
    with pytest.raises(LabelFolderError, match="nothing/images/train is missing"):
        find_boundary_pairs(parts / "nothing")
    with pytest.raises(LabelFolderError, match=f"^{parts}/images/test is missing: split='test'"):
        find_boundary_pairs(parts, "test")
    (parts / "groundTruth/val/c.mat").rename(parts / "groundTruth/val/d.mat")
    with pytest.raises(LabelFolderError, match="c.png has no annotations .*c.mat"):
        find_boundary_pairs(parts, "val")
    (parts / "images/val/c.png").unlink()
    with pytest.raises(LabelFolderError, match="images/val holds no image files"):
        find_boundary_pairs(parts, "val")
    write_image(parts / "images/val/a.png", np.zeros((40, 48, 3), "uint8"))
    (parts / "groundTruth/val/d.mat").rename(parts / "groundTruth/val/a.mat")
    with pytest.raises(LabelFolderError, match="val/a.png has the name of .*train/a.png"):
        find_boundary_pairs(parts, ("train", "val"))
    (parts / "images/train/a.png").unlink()
    with pytest.raises(LabelFolderError, match="train/a.mat has no image in .*images/train"):
        find_boundary_pairs(parts)


ROOT = "BSR/BSDS500/data"


def files(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_images_and_annotations_are_unpacked_and_nothing_else(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    contents = [
        (f"{ROOT}/images/train/1.jpg", b"one"),
        (f"./{ROOT}/groundTruth/test/2.mat", b"two"),
        (f"{ROOT}/images/train/Thumbs.db", b"other"),
        (f"{ROOT}/images/train/../../../../../evil.jpg", b"evil"),
        (f"/{ROOT}/images/train/4.jpg", b"evil"),
        ("../evil.jpg", b"evil"),
    ]
    links = [
        (f"{ROOT}/images/val/7.jpg", str(secret), tarfile.SYMTYPE),
        (f"{ROOT}/images/val/8.jpg", f"{ROOT}/images/train/1.jpg", tarfile.LNKTYPE),
        (f"{ROOT}/images/val", str(tmp_path), tarfile.SYMTYPE),
    ]
    archive = tar_file(tmp_path / "BSR.tgz", contents, links, mode="w:gz")
    before = files(tmp_path)
    folder = unpack_bsds500(archive, tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    found = files(folder)
    assert found == {"images/train/1.jpg": b"one", "groundTruth/test/2.mat": b"two"}
    assert set(files(tmp_path)) == set(before) | {f"a/b/{name}" for name in found}


def test_limits(tmp_path, monkeypatch):
    contents = [(f"{ROOT}/images/val/1.jpg", bytes(900)), ("BSR/README", bytes(900))]
    archive = tar_file(tmp_path / "BSR.tgz", contents, mode="w:gz")
    for name, reason in (
        ("_MAX_FILE_BYTES", "1.jpg of 900 bytes, more than the 800"),
        ("_MAX_BYTES", "more than 800 bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"keras_rpe.data.bsds.{name}", 800)
            with pytest.raises(ImageFileError, match=reason):
                unpack_bsds500(archive, tmp_path / "out")
    unpack_bsds500(archive, tmp_path / "out")


def test_bad_archives_are_named(tmp_path):
    archive, out = tmp_path / "BSR.tgz", tmp_path / "out"
    with pytest.raises(ImageFileError, match="tgz does not exist"):
        unpack_bsds500(archive, out)
    noise = np.random.default_rng(0).bytes(20000)
    tar_file(archive, [(f"{ROOT}/images/val/1.jpg", noise)], mode="w:gz")
    whole = archive.read_bytes()
    cut = [whole[:end] for end in range(1, len(whole) - 8, 3997)]
    for content in (b"", b"no archive", gzip.compress(b"no tar file" * 100), *cut):
        archive.write_bytes(content)
        with pytest.raises(ImageFileError, match="^[^\n]*tgz (cannot be read|holds no)[^\n]*$"):
            unpack_bsds500(archive, out)
    assert not list(out.rglob("*.jpg"))
    tar_file(archive, [("BSR/README", b"text")], mode="w:gz")
    with pytest.raises(ImageFileError, match="tgz holds nothing in BSR/BSDS500/data"):
        unpack_bsds500(archive, out)
