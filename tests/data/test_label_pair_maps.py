from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keras_rpe.data import ImageFileError, LabelPair, read_label_pair, write_image, write_labels
from keras_rpe.data.folder import check_label_numbers


def pair(folder: Path, instances: list, classes: list | None, side: int = 8) -> LabelPair:
    write_image(folder / "image.png", np.zeros((side, 8, 3), np.uint8))
    write_labels(folder / "instances.png", np.repeat([instances], 8, 0))
    if classes is not None:
        write_labels(folder / "classes.png", np.repeat([classes], 8, 0))
    file = None if classes is None else folder / "classes.png"
    return LabelPair(folder / "image.png", folder / "instances.png", "a", file)


def test_maps_agree(tmp_path):
    one = pair(tmp_path, [0, 3, 3, 3, 300, 300, 255, 0], [0, 2, 2, 1, 5, 255, 4, 7])
    _, instances, classes = read_label_pair(one, 255, 7)
    assert instances[0].tolist() == [0, 3, 3, -1, 300, -1, -1, 0]
    assert classes[0].tolist() == [0, 2, 2, -1, 5, -1, -1, 7]


def test_without_classes(tmp_path):
    one = pair(tmp_path, [0, 3, 3, 9, 9, 9, 255, 0], None)
    for void, number in ((None, 255), (255, -1)):
        _, instances, classes = read_label_pair(one, void)
        assert classes is None
        assert instances[0].tolist() == [0, 3, 3, 9, 9, 9, number, 0]


def test_what_does_not_fit(tmp_path):
    one = pair(tmp_path, [0, 3, 3, 3, 0, 0, 0, 0], [0, 8, 8, 8, 0, 0, 0, 0])
    with pytest.raises(ImageFileError, match=r"classes\.png has the class 8, above num_classes"):
        read_label_pair(one, None, 7)
    one = pair(tmp_path, [0, 3, 3, 3, 0, 0, 0, 0], [0] * 8)
    with pytest.raises(ImageFileError, match=r"classes\.png has no class for the object 3"):
        read_label_pair(one)
    one = pair(tmp_path, [0] * 8, [0] * 8, side=9)
    with pytest.raises(ImageFileError, match=r"instances\.png and its image no longer have one"):
        read_label_pair(one)
    with pytest.raises(ImageFileError, match="a has no image, or no labels"):
        read_label_pair(one._replace(image=None))


@pytest.mark.parametrize(
    ("void", "num_classes", "classes", "words"),
    [
        (0, None, None, "void needs a whole number from 1.*void=0"),
        (-1, None, None, "void=-1"),
        (True, None, None, "void=True"),
        (255.0, None, None, "void=255.0"),
        (None, 0, "*", "num_classes=0"),
        (None, 2**31, "*", "num_classes=2147483648"),
        (None, 3, None, "num_classes needs classes"),
    ],
)
def test_bad_numbers(void, num_classes, classes, words):
    with pytest.raises(ValueError, match=words):
        check_label_numbers(void, num_classes, classes)
