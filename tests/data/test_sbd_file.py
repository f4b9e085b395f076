from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from voc_layout import save_sbd, write_sbd

from keras_rpe.data import ImageFileError, read_sbd


def read(folder: Path, name: str = "a") -> tuple[np.ndarray, np.ndarray]:
    return read_sbd(folder / "inst" / f"{name}.mat", folder / "cls" / f"{name}.mat")


def test_round_trip(tmp_path):
    for name, (_, instances, classes) in write_sbd(tmp_path, ["a", "b", "c"]).items():
        found = read(tmp_path, name)
        np.testing.assert_array_equal(found[0], instances)
        np.testing.assert_array_equal(found[1], classes)
        assert found[0].dtype == found[1].dtype == np.int32


def test_pixels_where_the_files_disagree_are_void(tmp_path):
    instances = np.array([[0, 1, 1, 1, 2, 0, 255, 0]])
    classes = np.array([[0, 8, 9, 0, 12, 12, 8, 255]])
    save_sbd(tmp_path, "a", instances, classes, np.array([[8], [12]], np.uint8))
    found = read(tmp_path)
    assert found[0].tolist() == [[0, 1, -1, -1, 2, -1, -1, -1]]
    assert found[1].tolist() == [[0, 8, -1, -1, 12, -1, -1, -1]]


def test_image_without_objects(tmp_path):
    nothing = np.zeros((9, 8), np.uint8)
    save_sbd(tmp_path, "a", nothing, nothing, np.zeros((0, 0)))
    assert not read(tmp_path)[0].any()


@pytest.mark.parametrize(
    ("instances", "classes", "categories", "words"),
    [
        ([[0, 1, 2]], [[0, 8, 8]], [[8]], "inst/a.mat has the instance 2, but categories of 1"),
        ([[0, 1]], [[0, 8]], [[21]], "inst/a.mat has the class 21, above the 20"),
        ([[0, 1]], [[0, 21]], [[8]], "cls/a.mat has the class 21, above the 20"),
        ([[0, 1]], [[0, 8]], [[0]], "no class for the instance 1"),
        ([[0, 1]], [[0], [8]], [[8]], "cls/a.mat has 2 x 1 pixels, but .*a.mat has 1 x 2"),
        ([[0, 1]], [[0, 8]], [[1.5]], "Categories that is not of whole numbers"),
        ([[0, 1]], [[0, 8]], [[np.nan]], "Categories that is not of whole numbers"),
        ([[0, 1]], [[0, 8]], [[-8]], "Categories that is not of whole numbers"),
        ([[0, 1]], [[0, 8]], "cow", "no GTinst.Categories"),
    ],
)
def test_what_does_not_fit(tmp_path, instances, classes, categories, words):
    categories = categories if isinstance(categories, str) else np.array(categories)
    save_sbd(tmp_path, "a", np.array(instances), np.array(classes), categories)
    with pytest.raises(ImageFileError, match=words) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_files(tmp_path):
    save_sbd(tmp_path, "a", np.eye(9, dtype=int), np.eye(9, dtype=int))
    file = tmp_path / "cls" / "a.mat"
    for content, words in [
        ({"GTcls": 3}, "GTcls that is not one struct"),
        ({"GTcls": {"Boundaries": 3}}, "no GTcls.Segmentation"),
        ({"GTcls": {"Segmentation": np.zeros((0, 0))}}, "an empty GTcls.Segmentation"),
        ({"GTinst": {}}, "no variable GTcls"),
    ]:
        scipy.io.savemat(file, content)
        with pytest.raises(ImageFileError, match=words):
            read(tmp_path)
    file.write_bytes(file.read_bytes()[:150])
    with pytest.raises(ImageFileError, match="cannot be read as a MATLAB file"):
        read(tmp_path)
    file.unlink()
    with pytest.raises(ImageFileError, match=r"cls/a\.mat does not exist"):
        read(tmp_path)
