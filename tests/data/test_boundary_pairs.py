from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bsds500_files import add

from keras_rpe.data import (
    ImageFileError,
    LabelFolderError,
    find_boundary_pairs,
    read_image,
    write_image,
)
from keras_rpe.data.bsds import read_boundary_pair


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            add(tmp_path, name, split)
    (tmp_path / "images/train/Thumbs.db").touch()
    return tmp_path


def test_pairs_of_one_part_and_of_several(folder):
    assert [pair.name for pair in find_boundary_pairs(folder)] == ["a", "b"]
    pairs = find_boundary_pairs(folder, ("val", "train"))
    assert [pair.name for pair in pairs] == ["c", "a", "b"]
    for pair in pairs:
        assert pair.image.stem == pair.boundaries.stem == pair.name
        image, annotations = read_boundary_pair(pair)
        assert image.shape == (40, 48, 3)
        assert len(annotations) == 4
        np.testing.assert_array_equal(image[..., 0], annotations[0].segmentation * 80)


@pytest.mark.parametrize("split", ["training", (), ("train", "train"), ("train", "x")])
def test_split_is_checked(folder, split):
    with pytest.raises(ValueError, match="^split needs one of train, val, test.* Received: split="):
        find_boundary_pairs(folder, split)


def test_missing_parts_are_named(folder):
    with pytest.raises(LabelFolderError, match="^folder needs an existing folder"):
        find_boundary_pairs(folder / "nothing")
    with pytest.raises(LabelFolderError, match=f"^{folder}/images/test is missing: split='test'"):
        find_boundary_pairs(folder, "test")
    (folder / "groundTruth/val/c.mat").rename(folder / "groundTruth/val/d.mat")
    with pytest.raises(LabelFolderError, match="c.png has no annotations .*c.mat"):
        find_boundary_pairs(folder, "val")
    (folder / "images/val/c.png").unlink()
    with pytest.raises(LabelFolderError, match="images/val holds no image files"):
        find_boundary_pairs(folder, "val")
    write_image(folder / "images/val/a.png", np.zeros((40, 48, 3), "uint8"))
    (folder / "groundTruth/val/d.mat").rename(folder / "groundTruth/val/a.mat")
    with pytest.raises(LabelFolderError, match="val/a.png has the name of .*train/a.png"):
        find_boundary_pairs(folder, ("train", "val"))
    (folder / "images/train/a.png").unlink()
    with pytest.raises(LabelFolderError, match="train/a.mat has no image in .*images/train"):
        find_boundary_pairs(folder)


def test_image_of_another_size_is_named(folder):
    pair = find_boundary_pairs(folder)[0]
    write_image(pair.image, read_image(pair.image).transpose(1, 0, 2))
    with pytest.raises(ImageFileError, match="a.mat has 40 x 48 pixels, but its image .* 48 x 40"):
        read_boundary_pair(pair)
