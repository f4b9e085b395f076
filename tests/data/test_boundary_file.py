from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from bsds500_files import annotator, drawn, segmentation, write_truth

from keras_rpe.data import ImageFileError, read_boundaries

GOOD = annotator(segmentation())
OTHER = annotator(segmentation(height=44))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "plane.mat"


@pytest.mark.parametrize("annotators", [1, 4, 9])
def test_maps_are_read_as_written(path, annotators):
    segments = [segmentation(shift=shift) for shift in range(annotators)]
    write_truth(path, [annotator(one) for one in segments])
    found = read_boundaries(path)
    assert len(found) == annotators
    for one, expected in zip(found, segments):
        assert (one.segmentation.dtype, one.boundaries.dtype) == (np.uint16, bool)
        np.testing.assert_array_equal(one.segmentation, expected)
        np.testing.assert_array_equal(one.boundaries, drawn(expected) > 0)


def test_struct_array_and_other_types_of_number(path):
    kinds = [("Segmentation", object), ("Boundaries", object)]
    array = np.zeros((1, 2), kinds)
    for index, dtype in enumerate(("float64", "int32")):
        for name, value in GOOD.items():
            array[name][0, index] = value.astype(dtype)
    scipy.io.savemat(path, {"groundTruth": array})
    found = read_boundaries(path)
    assert len(found) == 2
    np.testing.assert_array_equal(found[1].segmentation, GOOD["Segmentation"])


def changed(**maps: object) -> list[object]:
    return [GOOD, {**GOOD, **maps}]


@pytest.mark.parametrize(
    ("annotators", "reason"),
    [
        ([], "has 0 annotators in groundTruth, not 1 to 100"),
        ([GOOD] * 101, "has 101 annotators in groundTruth, not 1 to 100"),
        ([GOOD, np.zeros((9, 9))], "has a groundTruth that is not a cell of structs"),
        ([GOOD, {"Segmentation": GOOD["Segmentation"]}], "has no Boundaries for annotator 2 of 2"),
        (changed(Segmentation="text"), "has no Segmentation for annotator 2 of 2"),
        (
            changed(Boundaries=np.zeros((40, 48), np.uint8)),
            "has no boundary at all for annotator 2 of 2",
        ),
        ([GOOD, OTHER], "has a Segmentation of 44 x 48 pixels for annotator 2 of 2"),
        (
            changed(Boundaries=OTHER["Boundaries"]),
            "has a Boundaries of 44 x 48 pixels for annotator 2 of 2",
        ),
        (
            changed(Segmentation=np.full((40, 48), np.nan)),
            "has a Segmentation for annotator 2 of 2 that is not of whole numbers",
        ),
        (changed(Segmentation=np.full((40, 48), 1.5)), "is not of whole numbers from 0 to 65535"),
        (changed(Segmentation=np.full((40, 48), -1)), "is not of whole numbers from 0 to 65535"),
        (changed(Segmentation=np.full((40, 48), 70000)), "is not of whole numbers from 0 to 65535"),
        (changed(Segmentation=np.ones((4, 48))), "of 4 x 48 pixels .* not at least 8 x 8"),
        (changed(Segmentation=np.ones((40, 48, 2))), "of 40 x 48 x 2 pixels for annotator 2"),
        (changed(Segmentation=np.zeros((0, 0))), "of 0 x 0 pixels for annotator 2"),
    ],
)
def test_bad_annotations_are_named(path, annotators, reason):
    write_truth(path, annotators)
    with pytest.raises(ImageFileError, match=f"^{path} .*{reason}") as caught:
        read_boundaries(path)
    assert str(caught.value).count("\n") == 0


def test_other_files_are_refused(path, tmp_path):
    with pytest.raises(ImageFileError, match="plane.mat does not exist"):
        read_boundaries(path)
    with pytest.raises(ImageFileError, match="is a folder"):
        read_boundaries(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ImageFileError, match=r"it is empty \(0 bytes\)"):
        read_boundaries(path)
    path.write_bytes(b"\xff\xd8\xff" + bytes(500))
    with pytest.raises(ImageFileError, match="cannot be read as a MATLAB file: it has no header"):
        read_boundaries(path)
    scipy.io.savemat(path, {"net": np.ones(3)})
    with pytest.raises(ImageFileError, match="has no variable groundTruth"):
        read_boundaries(path)
    scipy.io.savemat(path, {"groundTruth": np.ones((9, 9))})
    with pytest.raises(ImageFileError, match="has a groundTruth that is not a cell of structs"):
        read_boundaries(path)
    with h5py.File(path, "w", userblock_size=512) as file:
        file["groundTruth"] = 1
    with pytest.raises(ImageFileError, match="that is not a cell of structs"):
        read_boundaries(path)


def test_damaged_files_give_one_sentence(path):
    write_truth(path, [GOOD, GOOD])
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    problems = []
    for step in range(200):
        damaged = bytearray(content)
        if step % 2:
            del damaged[int(rng.integers(len(content))) :]
        else:
            for place in rng.integers(0, len(content), 3):
                damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                found = read_boundaries(path)
            except ImageFileError as error:
                problems.append(str(error))
            else:
                assert all(one.boundaries.any() for one in found)
    assert len(problems) > 130
    assert all(one.startswith(str(path)) and "\n" not in one for one in problems)
