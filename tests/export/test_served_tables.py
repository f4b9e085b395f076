import numpy as np
import pytest

from keras_rpe.export.served import checked_classes, checked_proposals
from keras_rpe.models import Proposals

MAPS = np.zeros((1, 9, 8, 2), "int32")
MAPS[0, 1:4, 1:5, 1] = 3
ANSWER = {
    "label_maps": MAPS,
    "scores": np.array([[0.9, 0.0]], "float32"),
    "scales": np.array([[1, 0]], "int32"),
    "ids": np.array([[3, 0]], "int32"),
    "boxes": np.array([[[1, 1, 4, 5], [0, 0, 0, 0]]], "int32"),
    "num_proposals": np.array([1], "int32"),
}


def changed(name: str, value: object) -> dict:
    return {**ANSWER, name: value}


def test_proposals_pass_as_nested_lists() -> None:
    found = checked_proposals({k: v.tolist() for k, v in ANSWER.items()}, 9, 8, "it")
    for name, value in ANSWER.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
    assert Proposals.from_tables(found).areas.tolist() == [12]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("label_maps", MAPS[..., 0]),
        ("label_maps", MAPS[:, 1:]),
        ("label_maps", np.zeros((1, 9, 8, 33), int)),
        ("scores", [[0.9, np.nan]]),
        ("scores", 0.9),
        ("scales", [[2, 0]]),
        ("scales", [[-1, 0]]),
        ("ids", [[0, 0]]),
        ("ids", [[3.5, 0]]),
        ("boxes", np.zeros((1, 2, 3))),
        ("num_proposals", [3]),
        ("num_proposals", [-1]),
        ("num_proposals", None),
    ],
)
def test_other_proposals_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^it must give the label_maps, .* 9 x 8 .*: .*{name}"):
        checked_proposals(changed(name, value), 9, 8, "it")
    without = {k: v for k, v in ANSWER.items() if k != name}
    with pytest.raises(ValueError, match=f"Received: no {name}$"):
        checked_proposals(without, 9, 8, "it")


def test_class_maps() -> None:
    maps = np.arange(72).reshape(1, 9, 8) % 5
    found = checked_classes({"classes": maps.tolist()}, 9, 8, "it")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, maps[0])
    for wrong in (maps[0], maps - 1, maps + 0.5, [["a"]], None):
        with pytest.raises(ValueError, match="^it must give the classes of one image of 9 x 8"):
            checked_classes({"classes": wrong}, 9, 8, "it")
    with pytest.raises(ValueError, match="Received: no classes"):
        checked_classes({}, 9, 8, "it")
